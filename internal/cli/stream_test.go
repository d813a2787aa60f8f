// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

// commandLimit bounds every command that a test starts.
const commandLimit = 20 * time.Second

// world is a fake daemon and the environment of commands that use it.
type world struct {
	t      *testing.T
	run    string
	daemon *fakeDaemon
	env    []string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	run, err := os.MkdirTemp("", "mp") // t.TempDir's path may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, run: run, daemon: newFakeDaemon(run)}
	w.env = append(os.Environ(), "MICROPOD_RUN_DIR="+run, "MICROPOD_DATA_DIR="+run+"/data", "MICROPOD_HOST=")
	t.Cleanup(func() {
		w.daemon.end()
		_ = os.RemoveAll(run)
	})
	if err := w.daemon.listen(); err != nil {
		t.Fatal(err)
	}
	return w
}

// hosted makes the daemon another's: no command starts one.
func (w *world) hosted() *world {
	w.env = append(w.env, "MICROPOD_HOST=unix://"+w.daemon.socket)
	return w
}

// command is micropod as a process of its own.
func (w *world) command(args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), commandLimit)
	w.t.Cleanup(cancel)
	c := exec.CommandContext(ctx, "micropod", args...)
	c.Env = w.env
	c.WaitDelay = time.Second
	return c
}

// must runs a command that may not fail and returns its output.
func (w *world) must(args ...string) string {
	w.t.Helper()
	c := w.command(args...)
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		w.t.Fatalf("micropod %q: %v\n%s", args, err, stderr.Bytes())
	}
	return string(out)
}

// until waits for a state of the fake daemon.
func (w *world) until(what string, done func() bool) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), commandLimit)
	defer cancel()
	if err := w.daemon.await(ctx, done); err != nil {
		w.t.Fatalf("waiting until %s: %v", what, err)
	}
}

// calls is how often an RPC was asked. The daemon's mu is held.
func (w *world) calls(rpc string) int { return len(w.daemon.requests[rpc]) }

func exitOf(err error) int {
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		return ended.ExitCode()
	}
	if err != nil {
		return -2
	}
	return 0
}

// numbers are lines that make a lost or doubled byte visible.
func numbers(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintln(&b, i)
	}
	return b.String()
}

// TestOutputGoesOn: the connection breaks in the middle of the output, once at a byte
// that is no chunk's end; not one byte is lost or doubled.
func TestOutputGoesOn(t *testing.T) {
	t.Parallel()
	for _, after := range []int{1, 1000, 32<<10 + 7, 200000} {
		t.Run(fmt.Sprint(after), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.daemon.change(func() { w.daemon.dropAfter = after })
			got := w.must("run", "busybox", "seq", "0", "49999")
			if want := numbers(50000); got != want {
				t.Errorf("got %d bytes, want %d; the first difference is at byte %d", len(got), len(want), firstDifference(got, want))
			}
			if w.calls("Attach") < 2 {
				t.Error("the connection was never made again: the test shows nothing")
			}
		})
	}
}

func firstDifference(a, b string) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// TestDaemonRestarts: the daemon of another place ends while a process runs, and is back a while later.
func TestDaemonRestarts(t *testing.T) {
	t.Parallel()
	w := newWorld(t).hosted()
	c := w.command("run", "--name", "talk", "-i", "busybox", "sh", "-c", "echo begun; read a; echo got $a; read b; echo then $b; exit 5")
	in, _ := c.StdinPipe()
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(in, "one")
	w.until("the first line was taken", func() bool {
		return len(w.daemon.containers) > 0 && bytes.Contains(w.daemon.containers[0].process.output[0], []byte("got one"))
	})
	w.daemon.stop()
	fmt.Fprintln(in, "two") // while nobody listens
	if err := w.daemon.listen(); err != nil {
		t.Fatal(err)
	}
	if code := exitOf(c.Wait()); code != 5 || out.String() != "begun\ngot one\nthen two\n" {
		t.Errorf("ended with %d, said %q; want 5 and each line once", code, out.String())
	}
}

// TestInputGoesOn: input that was sent and not taken when the daemon died is sent again.
func TestInputGoesOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t).hosted()
	text := numbers(200000)
	c := w.command("run", "--rm", "-i", "busybox", "sh", "-c", "head -c 100000; echo half >&2; cat")
	c.Stdin = strings.NewReader(text)
	var out, stderr bytes.Buffer
	c.Stdout, c.Stderr = &out, &stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	w.until("some input was taken", func() bool {
		return len(w.daemon.containers) > 0 && w.daemon.containers[0].process.taken > 200000
	})
	w.daemon.cut()
	if err := c.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, stderr.Bytes())
	}
	if got := out.String(); got != text {
		t.Errorf("%d bytes came back of %d; the first difference is at byte %d", len(got), len(text), firstDifference(got, text))
	}
}

// TestLogsGoOn: a log that is followed goes on behind the last line after the daemon was away.
func TestLogsGoOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t).hosted()
	w.must("run", "-d", "--name", "web", "busybox", "sh", "-c", "seq 0 999; sleep 0.5; seq 1000 1999")
	c := w.command("logs", "-f", "web")
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, os.Stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	w.until("the log is followed", func() bool { return w.calls("Logs") > 0 })
	w.daemon.stop()
	if err := w.daemon.listen(); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		t.Fatal(err)
	}
	if got, want := out.String(), numbers(2000); got != want {
		t.Errorf("got %d bytes, want %d; the first difference is at byte %d", len(got), len(want), firstDifference(got, want))
	}
}

// TestSignals: what ends this command's foreground reaches the container, whose exit code comes back.
func TestSignals(t *testing.T) {
	t.Parallel()
	for _, signal := range []syscall.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGUSR1} {
		t.Run(unix.SignalName(signal), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			name := strings.TrimPrefix(unix.SignalName(signal), "SIG")
			c := w.command("run", "--rm", "busybox", "sh", "-c", "trap 'exit 33' "+name+"; echo ready; while :; do sleep 0.05; done")
			out, _ := c.StdoutPipe()
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			if line := make([]byte, 6); !readFull(out, line) || string(line) != "ready\n" {
				t.Fatalf("it said %q", line)
			}
			w.passesSignals(c)
			_ = c.Process.Signal(signal)
			if code := exitOf(c.Wait()); code != 33 {
				t.Errorf("ended with %d, want the container's 33", code)
			}
		})
	}
}

// passesSignals waits until the command knows that its container runs: from then on it passes
// on a SIGCONT, which does nothing at any time.
func (w *world) passesSignals(c *exec.Cmd) {
	w.t.Helper()
	limit := time.Now().Add(commandLimit)
	for passed := false; !passed; {
		if err := c.Process.Signal(unix.SIGCONT); err != nil || time.Now().After(limit) {
			w.t.Fatalf("no SIGCONT was passed on (%v)", err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
		passed = w.daemon.await(ctx, func() bool { return w.calls("Kill") > 0 }) == nil
		cancel()
	}
}

func readFull(r io.Reader, p []byte) bool {
	_, err := io.ReadFull(r, p)
	return err == nil
}

// TestCalledOff: Ctrl-C before the container runs ends the command at once and leaves nothing.
func TestCalledOff(t *testing.T) {
	t.Parallel()
	for _, held := range []string{"Create", "Start"} {
		for _, flags := range [][]string{nil, {"-d"}} {
			t.Run(held+strings.Join(flags, ""), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				w.daemon.change(func() { w.daemon.hold[held] = true })
				id := w.run + "/cid"
				args := append(append([]string{"run", "--cidfile", id}, flags...), "busybox", "true")
				c := w.command(args...)
				var stderr bytes.Buffer
				c.Stderr = &stderr
				if err := c.Start(); err != nil {
					t.Fatal(err)
				}
				w.until(held+" was asked", func() bool { return w.calls(held) > 0 })
				_ = c.Process.Signal(unix.SIGINT)
				if code := exitOf(c.Wait()); code != 130 || stderr.Len() > 0 {
					t.Errorf("ended with %d, said %q; want 130 and nothing", code, stderr.String())
				}
				if out := w.must("ps", "-aq"); out != "" {
					t.Errorf("%s is left", out)
				}
				if _, err := os.Stat(id); err == nil {
					t.Error("the container id file is left")
				}
			})
		}
	}
}

// interrupts is how many were passed on. The daemon's mu is held.
func (w *world) interrupts() (n int) {
	for _, r := range w.daemon.requests["Kill"] {
		if r.(*v1.KillContainerRequest).Signal == "SIGINT" {
			n++
		}
	}
	return n
}

// TestThreeInterrupts: a container that ignores signals does not hold the command.
func TestThreeInterrupts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.command("run", "busybox", "sh", "-c", "trap '' INT; echo ready; sleep 1000")
	out, _ := c.StdoutPipe()
	var stderr bytes.Buffer
	c.Stderr = &stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	readFull(out, make([]byte, 6))
	w.passesSignals(c)
	for i := range forceAfter {
		_ = c.Process.Signal(unix.SIGINT)
		if i < forceAfter-1 {
			w.until("the interrupt was passed on", func() bool { return w.interrupts() > i })
		}
	}
	if code := exitOf(c.Wait()); code != 130 || !strings.Contains(stderr.String(), "the container may still run") {
		t.Errorf("ended with %d, said %q", code, stderr.String())
	}
}

// TestAttach joins a container that runs: output from now on, and its exit code.
func TestAttach(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must("run", "-d", "--name", "talk", "busybox", "sh", "-c", "trap 'echo later; exit 6' USR1; echo before; while :; do sleep 0.05; done")
	w.until("it wrote", func() bool { return len(w.daemon.containers[0].process.output[0]) > 0 })
	c := w.command("attach", "--no-stdin", "--sig-proxy=false", "talk")
	var out bytes.Buffer
	c.Stdout = &out
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	w.until("it is attached", func() bool { return w.daemon.containers[0].process.clients == 1 })
	w.must("kill", "-s", "USR1", "talk")
	if code := exitOf(c.Wait()); code != 6 || out.String() != "later\n" {
		t.Errorf("ended with %d, said %q; want 6 and what came since", code, out.String())
	}
}

// TestStartIsAnsweredTooLate: the daemon goes away after it started the container and before it
// said so; the container runs once.
func TestStartIsAnsweredTooLate(t *testing.T) {
	t.Parallel()
	for _, verb := range []string{"run", "start"} {
		t.Run(verb, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t).hosted()
			args := []string{"run", "busybox", "sh", "-c", "echo begun; exit 4"}
			if verb == "start" {
				w.must("create", "--name", "job", "busybox", "sh", "-c", "echo begun; exit 4")
				args = []string{"start", "-a", "job"}
			}
			w.daemon.change(func() { w.daemon.loseStart = true })
			out, err := w.command(args...).Output()
			if code := exitOf(err); code != 4 || string(out) != "begun\n" {
				t.Errorf("ended with %d, said %q; want 4 and one line", code, out)
			}
			if n := w.calls("Start"); n != 1 {
				t.Errorf("the container was started %d times", n)
			}
		})
	}
}

// TestBrokenPipe: a reader that goes away ends the command as it ends any in a pipe: without a word.
func TestBrokenPipe(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Close()
	c := w.command("ps")
	var stderr bytes.Buffer
	c.Stdout, c.Stderr = out, &stderr
	err = c.Run()
	var ended *exec.ExitError
	if !errors.As(err, &ended) || ended.Sys().(syscall.WaitStatus).Signal() != unix.SIGPIPE || stderr.Len() > 0 {
		t.Errorf("ended with %v, said %q; want SIGPIPE and nothing", err, stderr.String())
	}
}
