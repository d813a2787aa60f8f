// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package container_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/micropod/micropod/internal/container"
	"github.com/micropod/micropod/internal/container/logfile"
)

// TestPipeThroughAContainer: input through cat comes back whole and in order, over lost sessions.
func TestPipeThroughAContainer(t *testing.T) {
	t.Parallel()
	total := 64 << 20
	if testing.Short() {
		total = 8 << 20
	}
	w := newWorld(t)
	c := config("cat")
	c.Stdin, c.StdinOnce = true, true
	i := w.create(c)
	a, err := w.Attach(w.soon(), i.ID, container.AttachOptions{Stdin: true, Stdout: true, StdoutOffset: zero()})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if at, err := a.InputOffset(w.soon()); at != 0 || err != nil || a.TTY() {
		t.Errorf("input begins at %d, %v", at, err)
	}
	if _, err := w.Start(w.soon(), i.ID); err != nil {
		t.Fatal(err)
	}
	sent, got := sha256.New(), sha256.New()
	go func() {
		defer a.CloseInput()
		chunk := make([]byte, 50_000)
		for left := total; left > 0; left -= len(chunk) {
			chunk = chunk[:min(left, len(chunk))]
			for n := range chunk {
				chunk[n] = byte(left + n*7)
			}
			sent.Write(chunk)
			if err := a.Input(context.Background(), chunk); err != nil {
				t.Error(err)
				return
			}
			if left%1_000_000 < 50_000 {
				if g := w.machines.Guest(i.MachineID); g != nil {
					g.LoseSession()
				}
			}
		}
	}()
	next := uint64(0)
	exit, err := a.Output(context.Background(), func(stderr bool, at uint64, p []byte) error {
		if stderr || at != next {
			return fmt.Errorf("stderr %t, at %d, want %d", stderr, at, next)
		}
		next = at + uint64(len(p))
		got.Write(p)
		a.Ack(next, 0)
		return nil
	})
	if err != nil || exit.Code != 0 || next != uint64(total) || !bytes.Equal(sent.Sum(nil), got.Sum(nil)) {
		t.Errorf("%d bytes of %d came back, %+v, %v", next, total, exit, err)
	}
}

// TestSlowClientStopsItsWriterAlone and goes on where it stopped.
func TestSlowClientStopsItsWriterAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const lines = 200_000 // 2 MB: more than all buffers together
	slow := w.create(config("many", fmt.Sprint(lines)))
	stuck, err := w.Attach(w.soon(), slow.ID, bothFromStart)
	if err != nil {
		t.Fatal(err)
	}
	defer stuck.Close()
	if _, err := w.Start(w.soon(), slow.ID); err != nil {
		t.Fatal(err)
	}
	w.eventually("the writer waits", func() bool {
		out, _ := w.process(slow, "").Written()
		return out == 256<<10 // what the agent keeps that nobody acknowledged
	})
	other := w.create(config("many", fmt.Sprint(lines)))
	client := w.attach(other.ID, bothFromStart)
	if _, err := w.Start(w.soon(), other.ID); err != nil {
		t.Fatal(err)
	}
	if out, _, _ := client.all(t); len(out) != 10*lines {
		t.Errorf("beside it another container brought %d bytes of %d", len(out), 10*lines)
	}
	if out, _ := w.process(slow, "").Written(); out != 256<<10 {
		t.Errorf("nobody read, and %d bytes were written", out)
	}
	w.state(slow.ID, container.Running)
	var all int
	exit, err := stuck.Output(w.soon(), func(_ bool, at uint64, p []byte) error {
		all += len(p)
		stuck.Ack(at+uint64(len(p)), 0)
		return nil
	})
	if err != nil || exit.Code != 0 || all != 10*lines {
		t.Errorf("going on it got %d bytes of %d, %+v, %v", all, 10*lines, exit, err)
	}
	if out, _ := w.logs(slow.ID); len(out) != 10*lines {
		t.Errorf("the log has %d bytes of %d", len(out), 10*lines)
	}
}

func TestClientThatIsStuckDoesNotHoldTheEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	i := w.create(config("many", "20000")) // 200 KB: less than the agent keeps
	stuck, err := w.Attach(w.soon(), i.ID, bothFromStart)
	if err != nil {
		t.Fatal(err)
	}
	defer stuck.Close()
	if _, err := w.Start(w.soon(), i.ID); err != nil {
		t.Fatal(err)
	}
	w.waited(i.ID)
	if out, _ := w.logs(i.ID); len(out) != 200_000 {
		t.Errorf("the log has %d bytes of 200000", len(out))
	}
	stop := errors.New("enough")
	if _, err := stuck.Output(w.soon(), func(bool, uint64, []byte) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("give's error came back as %v", err)
	}
}

func TestExec(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	i := w.started(config("sleep"))
	id, err := w.Exec(w.soon(), i.ID, container.ExecConfig{Command: []string{"echo", "from", "exec"}})
	if err != nil {
		t.Fatal(err)
	}
	exit, err := w.Wait(w.soon(), i.ID, id) // before anybody attached
	if err != nil || exit.Code != 0 {
		t.Errorf("it ended with %+v, %v", exit, err)
	}
	client := w.attach(i.ID, container.AttachOptions{Exec: id, Stdout: true, Stderr: true, StdoutOffset: zero(), StderrOffset: zero()})
	if stdout, stderr, exit := client.all(t); stdout != "from exec\n" || stderr != "to stderr\n" || exit.Code != 0 {
		t.Errorf("its client got %q, %q, %+v", stdout, stderr, exit)
	}
	if stdout, _ := w.logs(i.ID); stdout != "" {
		t.Errorf("the container's log has %q of it", stdout)
	}
	w.eventually("the agent may forget it", func() bool { return w.machines.Guest(i.MachineID).Forgotten() == 1 })

	id, err = w.Exec(w.soon(), i.ID, container.ExecConfig{Command: []string{"cat"}, Stdin: true, TTY: true, Rows: 24, Cols: 80})
	if err != nil {
		t.Fatal(err)
	}
	client = w.attach(i.ID, container.AttachOptions{Exec: id, Stdin: true, Stdout: true, Stderr: true, StdoutOffset: zero()})
	if !client.TTY() {
		t.Error("its terminal is not told")
	}
	if err := w.Resize(w.soon(), i.ID, id, 30, 100); err != nil {
		t.Error(err)
	}
	if err := client.Resize(w.soon(), 40, 120); err != nil {
		t.Error(err)
	}
	p := w.process(i, id)
	if a, b := <-p.Sizes, <-p.Sizes; a != [2]uint32{30, 100} || b != [2]uint32{40, 120} {
		t.Errorf("sizes %v and %v arrived", a, b)
	}
	if err := client.Input(w.soon(), []byte("typed")); err != nil {
		t.Fatal(err)
	}
	client.CloseInput()
	if stdout, _, _ := client.all(t); stdout != "typed" {
		t.Errorf("input came back as %q", stdout)
	}

	var failed *container.StartError
	if _, err := w.Exec(w.soon(), i.ID, container.ExecConfig{Command: []string{"nonesuch"}}); !errors.As(err, &failed) || failed.ExitCode != 127 {
		t.Errorf("an unknown command gave %v", err)
	}
	var invalid *container.InvalidError
	if _, err := w.Exec(w.soon(), i.ID, container.ExecConfig{}); !errors.As(err, &invalid) {
		t.Errorf("no command gave %v", err)
	}
	if err := w.Resize(w.soon(), i.ID, "", 0, 1<<20); !errors.As(err, &invalid) {
		t.Errorf("a window of no size gave %v", err)
	}
	var not *container.NotFoundError
	for _, err := range []error{
		w.Resize(w.soon(), i.ID, "none", 1, 1),
		func() error { _, err := w.Wait(w.soon(), i.ID, "none"); return err }(),
		func() error { _, err := w.Attach(w.soon(), i.ID, container.AttachOptions{Exec: "none"}); return err }(),
	} {
		if !errors.As(err, &not) || not.Exec != "none" {
			t.Errorf("an unknown process gave %v", err)
		}
	}
}

func TestExecEndsWithItsContainer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	i := w.started(config("sleep"))
	id, err := w.Exec(w.soon(), i.ID, container.ExecConfig{Command: []string{"stubborn"}})
	if err != nil {
		t.Fatal(err)
	}
	client := w.attach(i.ID, container.AttachOptions{Exec: id, Stdout: true})
	detached, err := w.Exec(w.soon(), i.ID, container.ExecConfig{Command: []string{"many", "100000"}, Detach: true})
	if err != nil || detached == "" {
		t.Fatalf("a detached one: %q, %v", detached, err)
	}
	if e, err := w.Wait(w.soon(), i.ID, detached); err != nil || e.Code != 0 {
		t.Errorf("the detached one, whose output nobody takes, ended with %+v, %v", e, err)
	}
	if err := w.Kill(w.soon(), i.ID, "TERM"); err != nil {
		t.Fatal(err)
	}
	if _, _, exit := client.all(t); exit.Code != 137 {
		t.Errorf("the further process ended with %+v", exit)
	}
	if e := w.waited(i.ID); e.Code != 143 {
		t.Errorf("the container ended with %+v", e)
	}
	var wrong *container.StateError
	if _, err := w.Exec(w.soon(), i.ID, container.ExecConfig{Command: []string{"true"}}); !errors.As(err, &wrong) {
		t.Errorf("exec in an ended container gave %v", err)
	}
}

// TestInputThatEndsWithItsClient, and the one that does not.
func TestInputThatEndsWithItsClient(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := config("cat")
	c.Stdin, c.StdinOnce = true, true
	once := w.started(c)
	a, err := w.Attach(w.soon(), once.ID, container.AttachOptions{Stdin: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Input(w.soon(), []byte("line\n")); err != nil {
		t.Fatal(err)
	}
	a.Close() // lost, without a word
	a.Close()
	if e := w.waited(once.ID); e.Code != 0 {
		t.Errorf("its process ended with %+v", e)
	}
	if stdout, _ := w.logs(once.ID); stdout != "line\n" {
		t.Errorf("the log has %q", stdout)
	}

	c.StdinOnce = false
	always := w.started(c)
	for range 2 {
		a, err := w.Attach(w.soon(), always.ID, container.AttachOptions{Stdin: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Input(w.soon(), []byte("x\n")); err != nil {
			t.Fatal(err)
		}
		a.CloseInput()
		a.Close()
	}
	w.eventually("both lines come", func() bool { stdout, _ := w.logs(always.ID); return stdout == "x\nx\n" })
	w.state(always.ID, container.Running)

	c.Stdin = false
	closed := w.started(config("sleep"))
	a, err = w.Attach(w.soon(), closed.ID, container.AttachOptions{Stdin: true})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if err := a.Input(w.soon(), make([]byte, 1<<20)); err != nil {
		t.Errorf("input for a process that has none gave %v, want it swallowed", err)
	}
}

// TestClientThatComesBackInTime finds its input open and its output from where it was.
func TestClientThatComesBackInTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *container.ServiceConfig) { c.InputGrace = time.Minute })
	c := config("cat")
	c.Stdin, c.StdinOnce = true, true
	i := w.started(c)
	a, err := w.Attach(w.soon(), i.ID, container.AttachOptions{Stdin: true, Stdout: true, StdoutOffset: zero()})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Input(w.soon(), []byte("first\n")); err != nil {
		t.Fatal(err)
	}
	w.eventually("it is logged", func() bool { s, _ := w.logs(i.ID); return s == "first\n" })
	a.Close()
	three := uint64(3)
	back := w.attach(i.ID, container.AttachOptions{Stdin: true, Stdout: true, StdoutOffset: &three})
	if at, err := back.InputOffset(w.soon()); at != 6 || err != nil {
		t.Errorf("input goes on at %d, %v; want 6", at, err)
	}
	if err := back.Input(w.soon(), []byte("second\n")); err != nil {
		t.Fatal(err)
	}
	back.CloseInput()
	if stdout, _, _ := back.all(t); stdout != "st\nsecond\n" {
		t.Errorf("coming back at byte 3 it got %q", stdout)
	}
}

func TestLogsFollow(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := config("cat")
	c.Stdin = true
	i := w.started(c)
	first, done := make(chan struct{}), make(chan error)
	var got strings.Builder
	go func() {
		done <- w.Logs(context.Background(), i.ID, logfile.ReadOptions{Tail: -1, Stdout: true, Follow: true}, func(e logfile.Entry) error {
			if got.Len() == 0 {
				close(first)
			}
			got.Write(e.Data)
			return nil
		})
	}()
	a, err := w.Attach(w.soon(), i.ID, container.AttachOptions{Stdin: true})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	_ = a.Input(w.soon(), []byte("one\n"))
	<-first
	_ = a.Input(w.soon(), []byte("two\nand a prompt: "))
	if _, err := w.Stop(w.soon(), i.ID, container.StopOptions{Timeout: new(time.Duration)}); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil || !strings.HasPrefix(got.String(), "one\n") {
		t.Errorf("following gave %q, %v", got.String(), err)
	}
	var not *container.NotFoundError
	if err := w.Logs(w.soon(), "nobody", logfile.ReadOptions{}, nil); !errors.As(err, &not) {
		t.Errorf("nobody's log gave %v", err)
	}
}

func TestTerminalHasOneStream(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := config("echo", "x")
	c.TTY = true
	i := w.create(c)
	client := w.attach(i.ID, bothFromStart)
	if _, err := w.Start(w.soon(), i.ID); err != nil {
		t.Fatal(err)
	}
	if stdout, stderr, _ := client.all(t); stdout != "x\n" || stderr != "" {
		t.Errorf("got %q, %q", stdout, stderr)
	}
}
