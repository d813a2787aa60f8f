// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func withTerminal(r *StartRequest) {
	r.Spec.Process.Terminal = true
	r.Spec.Process.ConsoleSize = &specs.Box{Height: 33, Width: 77}
	r.Stdin = true
}

func TestTerminal(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	script := `test -t 0 && test -t 1 && test -t 2 && echo terminal; tty; stty size; stat -c '%u %a %t:%T' /dev/pts/0; stat -c %t:%T /dev/console
echo through > /dev/tty; echo console > /dev/console; trap 'stty size; exit 4' WINCH; echo ready; while true; do sleep 0.05; done`
	_, p, out := runningTerminal(t, r, script)
	if p.Stderr != nil {
		t.Error("a terminal has no standard error of its own")
	}
	// 136 is the major number of pts; the container's console is the same device.
	for _, want := range []string{"terminal", "/dev/pts/0", "33 77", "1000 620 88:0", "88:0", "through", "console", "ready"} {
		expectTerminal(t, out, want)
	}
	if err := p.Resize(50, 132); err != nil {
		t.Fatal(err)
	}
	expectTerminal(t, out, "50 132")
	if exit, err := p.Wait(t.Context()); err != nil || exit.Code != 4 {
		t.Errorf("got %+v, %v, want code 4", exit, err)
	}
	if _, err := io.ReadAll(p.Stdout); err != nil {
		t.Errorf("at its end the terminal gives %v, want an ordinary end", err)
	}
	if err := p.Stdin.Close(); err != nil {
		t.Error(err)
	}
	if _, err := p.Stdin.Write([]byte("x")); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("writing after Close: got %v", err)
	}
	if err := p.Stdout.Close(); err != nil {
		t.Error(err)
	}
	if err := p.Stdout.Close(); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("closing twice: got %v", err)
	}
}

func runningTerminal(t *testing.T, r *Runtime, script string) (string, *Process, *lines) {
	t.Helper()
	req := request(busybox(t), dockerSpec("/bin/sh", "-c", script))
	withTerminal(&req)
	req.User = "app"
	p, err := r.Start(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Delete(context.Background(), req.ID); err != nil {
			t.Errorf("deleting: %v", err)
		}
	})
	return req.ID, p, &lines{from: p.Stdout}
}

// lines reads a terminal's output line by line, and no further.
type lines struct{ from io.Reader }

func (l *lines) next() (string, error) {
	var line strings.Builder
	var b [1]byte
	for {
		if _, err := l.from.Read(b[:]); err != nil {
			return line.String(), err
		}
		if b[0] == '\n' {
			return strings.TrimSuffix(line.String(), "\r"), nil
		}
		line.WriteByte(b[0])
	}
}

func expectTerminal(t *testing.T, out *lines, want string) {
	t.Helper()
	if got, err := out.next(); err != nil || got != want {
		t.Fatalf("got line %q, %v, want %q", got, err, want)
	}
}

// What is typed reaches the process, and the keys that mean signals do what they should.
func TestTerminalKeys(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	for _, init := range []bool{false, true} {
		req := request(busybox(t), dockerSpec("/bin/sh", "-c", `trap 'echo interrupted; exit 6' INT; read line; echo "got $line"; while true; do sleep 0.05; done`))
		withTerminal(&req)
		req.Init = init
		p, err := r.Start(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		out := &lines{from: p.Stdout}
		if _, err := io.WriteString(p.Stdin, "hello\n"); err != nil {
			t.Fatal(err)
		}
		expectTerminal(t, out, "hello") // echoed
		expectTerminal(t, out, "got hello")
		if _, err := io.WriteString(p.Stdin, "\x03"); err != nil {
			t.Fatal(err)
		}
		expectTerminal(t, out, "^Cinterrupted")
		if exit, err := p.Wait(t.Context()); err != nil || exit.Code != 6 {
			t.Errorf("init %v: got %+v, %v, want code 6", init, exit, err)
		}
		p.Stdout.Close()
		if err := r.Delete(t.Context(), req.ID); err != nil {
			t.Error(err)
		}
	}
}

func TestTerminalOfExec(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	id, first, _ := running(t, r, "echo ready; sleep 1000")
	if err := first.Resize(1, 1); !errors.Is(err, unix.ENOTTY) {
		t.Errorf("resizing what is no terminal: got %v, want ENOTTY", err)
	}
	shell := process("/bin/sh", "-c", "tty; stty size; sleep 1000")
	shell.Terminal, shell.ConsoleSize = true, &specs.Box{Height: 10, Width: 20}
	p, err := r.Exec(t.Context(), id, ExecRequest{Process: shell})
	if err != nil {
		t.Fatal(err)
	}
	if p.Stdin != nil {
		t.Error("there is a standard input that was not asked for")
	}
	out := &lines{from: p.Stdout}
	expectTerminal(t, out, "/dev/pts/0")
	expectTerminal(t, out, "10 20")
	if err := p.Stdout.Close(); err != nil { // hangs up: SIGHUP to the session
		t.Error(err)
	}
	if exit, err := p.Wait(t.Context()); err != nil || exit.Signal != syscall.SIGHUP {
		t.Errorf("got %+v, %v, want an end by SIGHUP", exit, err)
	}
}

// A container may put anything where its terminals come from.
func TestHostilePtmx(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	for name, do := range map[string]string{
		"device": "mount -t tmpfs none /dev/pts; mknod /dev/pts/ptmx c 1 3",
		"fifo":   "mount -t tmpfs none /dev/pts; mknod /dev/pts/ptmx p",
		"link":   "mount -t tmpfs none /dev/pts; ln -s /proc/self/fd/3 /dev/pts/ptmx",
		"none":   "mount -t tmpfs none /dev/pts",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			id, _, _ := running(t, r, do+"; echo ready; sleep 1000", func(r *StartRequest) {
				caps := append([]string{"CAP_SYS_ADMIN"}, dockerCaps...)
				r.Spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
				if err := os.Symlink("busybox", r.RootFS.Dir+"/bin/ln"); err != nil {
					t.Fatal(err)
				}
			})
			sh := process("true")
			sh.Terminal = true
			if _, err := r.Exec(t.Context(), id, ExecRequest{Process: sh}); err == nil || !strings.Contains(err.Error(), "terminal") {
				t.Errorf("got %v, want a refusal", err)
			}
		})
	}
}
