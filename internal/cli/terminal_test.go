// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/console"
	"golang.org/x/sys/unix"
)

// terminal is a command on a terminal of its own.
type terminal struct {
	t      *testing.T
	pty    console.Console
	tty    *os.File
	before unix.Termios
	cmd    *exec.Cmd

	mu      sync.Mutex
	shown   bytes.Buffer
	changed chan struct{} // one is there after new output
}

func (w *world) terminal(args ...string) *terminal {
	w.t.Helper()
	pty, path, err := console.NewPty()
	if err != nil {
		w.t.Fatal(err)
	}
	tty, err := os.OpenFile(path, os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	x := &terminal{t: w.t, pty: pty, tty: tty, cmd: w.command(args...), changed: make(chan struct{}, 1)}
	x.before = x.modes()
	_ = pty.Resize(console.WinSize{Height: 30, Width: 100})
	x.cmd.Stdin, x.cmd.Stdout, x.cmd.Stderr = tty, tty, tty
	x.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := x.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	go x.read()
	w.t.Cleanup(func() {
		_ = tty.Close()
		_ = pty.Close()
	})
	return x
}

func (x *terminal) read() {
	buffer := make([]byte, 4096)
	for {
		n, err := x.pty.Read(buffer)
		if err != nil {
			return
		}
		x.mu.Lock()
		x.shown.Write(buffer[:n])
		x.mu.Unlock()
		select {
		case x.changed <- struct{}{}:
		default:
		}
	}
}

// see waits until text is shown.
func (x *terminal) see(text string) {
	x.t.Helper()
	limit := time.After(commandLimit)
	for {
		x.mu.Lock()
		all := x.shown.String()
		x.mu.Unlock()
		if strings.Contains(all, text) {
			return
		}
		select {
		case <-x.changed:
		case <-limit:
			x.t.Fatalf("never saw %q; the terminal shows\n%s", text, all)
		}
	}
}

func (x *terminal) write(s string) {
	if _, err := x.pty.Write([]byte(s)); err != nil {
		x.t.Fatal(err)
	}
}

func (x *terminal) modes() unix.Termios {
	m, err := unix.IoctlGetTermios(int(x.tty.Fd()), unix.TCGETS)
	if err != nil {
		x.t.Fatal(err)
	}
	return *m
}

// ends waits for the command, whose terminal must be as it was.
func (x *terminal) ends(code int) {
	x.t.Helper()
	err := x.cmd.Wait()
	if got := exitOf(err); got != code {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.t.Errorf("ended with %d (%v), want %d; the terminal shows\n%s", got, err, code, x.shown.String())
	}
	if x.modes() != x.before {
		x.t.Error("the terminal's modes are not what they were before the command")
	}
}

func TestTerminalRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	x := w.terminal("run", "--rm", "-it", "busybox", "sh", "-c", "echo ready; read a; echo got $a; exit 7")
	x.see("ready")
	if x.modes() == x.before {
		t.Error("the terminal is not raw while the container has it")
	}
	w.until("the size came", func() bool {
		s := w.daemon.containers[0].process.size
		return s != nil && s.Rows == 30 && s.Cols == 100
	})
	_ = x.pty.Resize(console.WinSize{Height: 31, Width: 101})
	w.until("the new size came", func() bool { s := w.daemon.containers[0].process.size; return s.Rows == 31 && s.Cols == 101 })
	x.write("word\r")
	x.see("got word")
	x.ends(7)
}

func TestTerminalDetach(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		flags []string
		keys  string
	}{
		"default": {nil, "\x10\x11"},
		"own":     {[]string{"--detach-keys", "ctrl-a,x"}, "\x01x"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			x := w.terminal(append(append([]string{"run", "-it", "--name", "shell"}, c.flags...), "busybox", "sh", "-c", "echo ready; cat")...)
			x.see("ready")
			x.write(c.keys)
			x.see("detached from")
			x.ends(0)
			if out := w.must("ps", "--format", "{{.Names}}"); out != "shell\n" {
				t.Errorf("ps shows %q after detaching, want the container running", out)
			}
			again := w.terminal("attach", "shell")
			w.until("it is attached again", func() bool { return w.calls("Attach") > 1 && w.daemon.containers[0].process.clients == 1 })
			again.write("hello\r")
			again.see("hello")
			w.must("kill", "shell")
			again.ends(137)
		})
	}
}

// TestTerminalRestored: whatever ends the command, the terminal is as before.
func TestTerminalRestored(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		args []string
		end  func(*world, *terminal)
		code int
	}{
		"SIGTERM to exec":    {[]string{"exec", "-it", "web", "sh", "-c", "echo ready; sleep 1000"}, signalTerm, -1},
		"SIGTERM, no proxy":  {[]string{"run", "--sig-proxy=false", "-it", "busybox", "sh", "-c", "echo ready; sleep 1000"}, signalTerm, -1},
		"SIGTERM to attach":  {[]string{"attach", "--sig-proxy=false", "web"}, signalTerm, -1},
		"the daemon refuses": {[]string{"exec", "-it", "web", "sh", "-c", "echo ready; sleep 1000"}, removeWeb, 125},
		"ctrl-c is a byte":   {[]string{"exec", "-it", "web", "sh", "-c", "trap 'exit 9' INT; echo ready; while :; do sleep 0.05; done"}, func(_ *world, x *terminal) { x.write("\x03") }, 9},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t).hosted()
			w.must("run", "-dit", "--name", "web", "busybox", "sh", "-c", "while :; do echo ready; sleep 0.05; done")
			x := w.terminal(c.args...)
			x.see("ready")
			w.until("it is attached", func() bool { return w.calls("Attach") > 0 })
			c.end(w, x)
			x.ends(c.code)
		})
	}
}

func signalTerm(_ *world, x *terminal) { _ = x.cmd.Process.Signal(unix.SIGTERM) }

// removeWeb breaks the connection; the next one is refused for good.
func removeWeb(w *world, _ *terminal) {
	w.daemon.change(func() { w.daemon.faults["Attach"] = noSuchContainer("web") })
	w.daemon.cut()
}

// TestProgress: bars on a terminal, which are gone at the end; lines elsewhere.
func TestProgress(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.daemon.change(func() { w.daemon.slow = 400 * time.Millisecond })
	x := w.terminal("pull", "busybox")
	x.see("rootfs")
	x.see("layer\uFFFD")
	x.see("[=====================   ]")
	x.see("\x1b[2A\x1b[J")
	x.see("aaaaaaaaaaaa")
	x.ends(0)

	c := w.command("pull", "busybox")
	var stderr bytes.Buffer
	c.Stderr = &stderr
	if err := c.Run(); err != nil {
		t.Fatal(err)
	}
	if got := stderr.String(); !strings.Contains(got, "layer\uFFFD: downloading (100B)\nrootfs: done\n") || strings.Contains(got, "\x1b") {
		t.Errorf("without a terminal it says %q", got)
	}
}
