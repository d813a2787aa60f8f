// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/console"
	"golang.org/x/sys/unix"
)

// terminal is a command on a terminal of its own: what it showed, and a way to type.
type terminal struct {
	t      *testing.T
	master *os.File
	cmd    *exec.Cmd
	tty    *os.File
	before unix.Termios
	shown  chan []byte
	all    bytes.Buffer
}

func startTerminal(t *testing.T, h *host, rows, cols uint16, args ...string) *terminal {
	t.Helper()
	pty, slavePath, err := console.NewPty()
	if err != nil {
		t.Fatal(err)
	}
	if err := pty.Resize(console.WinSize{Height: rows, Width: cols}); err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(slavePath, os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	before, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	c := h.cmd(testContext(t), args...)
	c.Stdin, c.Stdout, c.Stderr = tty, tty, tty
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Dup(int(pty.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	term := &terminal{t: t, master: os.NewFile(uintptr(fd), "pty"), cmd: c, tty: tty, before: *before, shown: make(chan []byte)}
	done := make(chan struct{})
	go term.read(done)
	t.Cleanup(func() {
		close(done)
		_ = tty.Close()
		_ = term.master.Close()
		_ = pty.Close()
	})
	return term
}

func (x *terminal) read(done <-chan struct{}) {
	for {
		buffer := make([]byte, 4096)
		n, err := x.master.Read(buffer)
		if err != nil {
			return
		}
		select {
		case x.shown <- buffer[:n]:
		case <-done:
			return
		}
	}
}

func (x *terminal) typeIn(s string) {
	x.t.Helper()
	if _, err := x.master.WriteString(s); err != nil {
		x.t.Fatal(err)
	}
}

// expect waits until the terminal has shown text since the last expect.
func (x *terminal) expect(text string) {
	x.t.Helper()
	limit := time.After(commandLimit)
	for !bytes.Contains(x.all.Bytes(), []byte(text)) {
		select {
		case b := <-x.shown:
			x.all.Write(b)
		case <-limit:
			x.t.Fatalf("the terminal never showed %q; it shows %q", text, clip(x.all.String()))
		}
	}
	at := bytes.Index(x.all.Bytes(), []byte(text))
	x.all.Next(at + len(text))
}

// end waits for the command and returns its exit code; the terminal must be as before.
func (x *terminal) end() int {
	x.t.Helper()
	go func() {
		for range x.shown { // let it write its last words
		}
	}()
	_ = x.cmd.Wait()
	after, err := unix.IoctlGetTermios(int(x.tty.Fd()), unix.TCGETS)
	if err != nil {
		x.t.Fatal(err)
	}
	if *after != x.before {
		x.t.Errorf("the terminal was not restored: %+v, before %+v", *after, x.before)
	}
	return x.cmd.ProcessState.ExitCode()
}

func TestTerminal(t *testing.T) {
	t.Parallel()
	x := startTerminal(t, shared, 33, 101, "run", "--rm", "-it", "busybox", "sh")
	x.expect("# ")
	x.typeIn("stty size; tty; echo TERM=$TERM\n")
	x.expect("33 101")
	x.expect("/dev/pts/0")
	x.expect("TERM=xterm")
	// The window changes.
	if err := unix.IoctlSetWinsize(int(x.master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 20, Col: 60}); err != nil {
		t.Fatal(err)
	}
	x.typeIn("while [ \"$(stty size)\" != '20 60' ]; do sleep 0.1; done; echo resized\n")
	x.expect("\nresized")
	// Ctrl-C is the shell's, not ours.
	x.typeIn("sh -c 'echo up; exec sleep 1000'\n")
	x.expect("\nup")
	x.typeIn("\x03")
	x.expect("# ")
	x.typeIn("exit 5\n")
	if code := x.end(); code != 5 {
		t.Errorf("exit code %d, want 5", code)
	}
}

func TestDetachAndAttach(t *testing.T) {
	t.Parallel()
	name := shared.name(t)
	x := startTerminal(t, shared, 24, 80, "run", "-it", "--name", name, "busybox", "sh")
	x.expect("# ")
	x.typeIn("SECRET=kept\n")
	x.expect("# ")
	x.typeIn("\x10\x11") // ctrl-p ctrl-q
	if code := x.end(); code != 0 {
		t.Errorf("detaching ended with %d, want 0", code)
	}
	if s := shared.must(t, "inspect", "-f", "{{.State.Status}}", name); s != "running" {
		t.Fatalf("after detaching the container is %s", s)
	}
	x = startTerminal(t, shared, 24, 80, "attach", name)
	x.typeIn("echo $SECRET; exit 6\n")
	x.expect("\nkept")
	if code := x.end(); code != 6 {
		t.Errorf("exit code %d, want 6", code)
	}
}

func TestExecTerminal(t *testing.T) {
	t.Parallel()
	name := shared.detached(t)
	x := startTerminal(t, shared, 40, 120, "exec", "-it", name, "sh")
	x.expect("# ")
	x.typeIn("stty size; exit 4\n")
	x.expect("40 120")
	if code := x.end(); code != 4 {
		t.Errorf("exit code %d, want 4", code)
	}
	if out := shared.must(t, "exec", name, "sh", "-c", "tty || true"); !strings.Contains(out, "not a tty") {
		t.Errorf("without -t there must be no terminal: %q", out)
	}
}
