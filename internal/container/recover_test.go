// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package container_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/micropod/micropod/internal/container"
	"github.com/micropod/micropod/internal/store"
)

// TestRestartedDaemonGoesOn: output, log, input, waiting and further processes.
func TestRestartedDaemonGoesOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := config("cat")
	c.Stdin, c.StdinOnce, c.Name = true, true, "c"
	i := w.started(c)
	a, err := w.Attach(w.soon(), i.ID, container.AttachOptions{Stdin: true, Stdout: true, StdoutOffset: zero()})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Input(w.soon(), []byte("one\ntwo\nhal")); err != nil {
		t.Fatal(err)
	}
	exec, err := w.Exec(w.soon(), i.ID, container.ExecConfig{Command: []string{"cat"}, Stdin: true})
	if err != nil {
		t.Fatal(err)
	}
	w.eventually("it came back and is logged", func() bool { s, _ := w.logs(i.ID); return s == "one\ntwo\n" })
	taken := ""
	stop := errors.New("enough")
	_, _ = a.Output(w.soon(), func(_ bool, _ uint64, p []byte) error { taken += string(p); a.Ack(4, 0); return stop })

	w.Close() // the client is cut off by it, and leaves after it
	a.Close()
	_ = w.db.Close()
	if out, _ := w.process(i, "").Acked(); out != 4 {
		t.Errorf("%d bytes were acknowledged; the client has 4", out)
	}
	w.start()

	w.state(i.ID, container.Running)
	four := uint64(4)
	back := w.attach("c", container.AttachOptions{Stdin: true, Stdout: true, StdoutOffset: &four})
	if at, err := back.InputOffset(w.soon()); at != 11 || err != nil {
		t.Errorf("input goes on at %d, %v; want 11", at, err)
	}
	if err := back.Input(w.soon(), []byte("f\nthree\n")); err != nil {
		t.Fatal(err)
	}
	further := w.attach("c", container.AttachOptions{Exec: exec, Stdin: true, Stdout: true, StdoutOffset: zero()})
	if err := further.Input(w.soon(), []byte("further")); err != nil {
		t.Fatal(err)
	}
	further.CloseInput()
	if stdout, _, exit := further.all(t); stdout != "further" || exit.Code != 0 {
		t.Errorf("the further process gave %q, %+v", stdout, exit)
	}
	back.CloseInput()
	if stdout, _, exit := back.all(t); stdout != "two\nhalf\nthree\n" || exit.Code != 0 {
		t.Errorf("the client that came back at byte 4 got %q, %+v", stdout, exit)
	}
	if stdout, _ := w.logs(i.ID); stdout != "one\ntwo\nhalf\nthree\n" {
		t.Errorf("the log has %q", stdout)
	}
}

func TestWhatEndedMeanwhile(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ended := w.started(config("sleep"))
	died := w.started(config("sleep"))
	lost := w.started(config("sleep"))
	rm := config("sleep")
	rm.AutoRemove = true
	removed := w.started(rm)
	w.stop()
	for _, i := range []container.Info{ended, removed} {
		p := w.process(i, "")
		p.Signals <- 15
	}
	w.machines.Crash(died.MachineID, "guest crashed")
	_ = w.machines.Delete(context.Background(), lost.MachineID, true)
	w.start()
	if e := w.waited(ended.ID); e.Code != 143 {
		t.Errorf("what ended meanwhile ended with %+v", e)
	}
	if e := w.waited(died.ID); e.Code != 255 || !strings.Contains(e.Reason, "guest crashed") {
		t.Errorf("what died meanwhile ended with %+v", e)
	}
	if e := w.waited(lost.ID); e.Code != 255 || e.Reason == "" {
		t.Errorf("what was lost meanwhile ended with %+v", e)
	}
	w.gone(removed.ID)
	w.eventually("no machine runs", func() bool { return w.machines.Running() == 0 })

	w.restart()
	client := w.attach(ended.ID, bothFromStart) // one that saw it begin
	if _, _, exit := client.all(t); exit.Code != 143 {
		t.Errorf("coming back after its end gave %+v", exit)
	}
}

func TestHalfMadeIsUndone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, method := range []string{"Create", "Start", "StartContainer"} {
		reached, release := make(chan struct{}), make(chan struct{})
		w.machines.Lock()
		w.machines.Before = func(m string) {
			if m == method {
				close(reached)
				<-release
			}
		}
		w.machines.Unlock()
		done := make(chan container.Info)
		go func() {
			info, _, err := w.Create(context.Background(), config("sleep"), nil)
			if err == nil {
				_, _ = w.Start(context.Background(), info.ID)
			}
			done <- info
		}()
		<-reached
		stopped := make(chan struct{})
		go func() { w.stop(); close(stopped) }()
		w.eventually("the daemon ends", func() bool {
			_, _, err := w.Create(w.soon(), container.Config{}, nil)
			return errors.Is(err, container.ErrShutdown)
		})
		w.machines.Lock()
		w.machines.Before = nil
		w.machines.Unlock()
		close(release)
		i := <-done
		<-stopped
		w.start()
		if method == "Create" {
			w.nothingLeft()
			continue
		}
		w.eventually(method+": it is settled", func() bool {
			i, err := w.Get(i.ID)
			return err != nil || i.State == container.Error || i.State == container.Created || i.State == container.Running
		})
		// A start that was done before the daemon's end reached it counts: then it runs.
		runs := 0
		if i, err := w.Get(i.ID); err == nil && i.State == container.Running {
			runs = 1
		}
		if n := w.machines.Running(); n != runs {
			t.Errorf("the daemon ended in %s: %d machines run, want %d", method, n, runs)
		}
		if i.ID != "" {
			if _, err := w.Remove(w.soon(), i.ID, true); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestKilledDaemonsRecords: states that only a kill -9 leaves behind.
func TestKilledDaemonsRecords(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	starting, creating, exited, stopping := w.started(config("sleep")), w.create(config()), w.started(config("sleep")), w.started(config("stubborn"))
	w.stop()
	db, err := store.Open(w.dir + "/state.db")
	if err != nil {
		t.Fatal(err)
	}
	records, err := store.NewBucket[map[string]any](db, "containers", 1)
	if err != nil {
		t.Fatal(err)
	}
	set := func(id, state string) {
		t.Helper()
		if err := records.Update(id, func(r *map[string]any) error { (*r)["State"] = state; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	set(starting.ID, "starting")
	set(creating.ID, "creating")
	set(exited.ID, "exited")
	set(stopping.ID, "stopping")
	if err := records.Put("unreadable", map[string]any{"State": "of tomorrow"}); err != nil {
		t.Fatal(err)
	}
	_ = db.Close()
	w.config.KillLimit = 1
	w.start()
	w.eventually("the half-started one is taken back", func() bool { i, _ := w.Get(starting.ID); return i.State == container.Error })
	w.gone(creating.ID)
	w.eventually("the half-made one's name is free", func() bool {
		_, _, err := w.Create(w.soon(), container.Config{Image: "box", Name: creating.Name}, nil)
		return err == nil
	})
	w.eventually("machines of what does not run stop", func() bool {
		return w.machines.Guest(starting.MachineID) == nil && w.machines.Guest(exited.MachineID) == nil
	})
	w.process(stopping, "").Signals <- 0
	if err := w.Kill(w.soon(), stopping.ID, ""); err != nil {
		t.Error(err)
	}
	if e := w.waited(stopping.ID); e.Code != 137 {
		t.Errorf("the one that was being stopped ended with %+v", e)
	}
}

func TestClosedServiceRefuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	i := w.create(config())
	waiting := w.attach(i.ID, bothFromStart)
	_ = waiting
	running := w.started(config("sleep"))
	client := w.attach(running.ID, bothFromStart)
	w.Close()
	for name, err := range map[string]error{
		"create": func() error { _, _, err := w.Create(w.soon(), config(), nil); return err }(),
		"start":  func() error { _, err := w.Start(w.soon(), i.ID); return err }(),
		"stop":   func() error { _, err := w.Stop(w.soon(), i.ID, container.StopOptions{}); return err }(),
		"remove": func() error { _, err := w.Remove(w.soon(), i.ID, true); return err }(),
	} {
		if !errors.Is(err, container.ErrShutdown) {
			t.Errorf("%s gave %v, want ErrShutdown", name, err)
		}
	}
	<-client.done
	if !errors.Is(client.err, container.ErrShutdown) {
		t.Errorf("the attached client was told %v, want ErrShutdown, so that it comes back", client.err)
	}
	waiting.Close()
	_ = w.db.Close()
	w.start()
	if _, err := container.New(container.ServiceConfig{}); err == nil {
		t.Error("a service of nothing was made")
	}
}

// TestAdoptedExecKeepsItsTerminal: its clients are told, and its size can be changed.
func TestAdoptedExecKeepsItsTerminal(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	i := w.started(config("sleep"))
	for _, tty := range []bool{true, false} {
		exec, err := w.Exec(w.soon(), i.ID, container.ExecConfig{Command: []string{"cat"}, Stdin: true, TTY: tty})
		if err != nil {
			t.Fatal(err)
		}
		w.restart()
		back := w.attach(i.ID, container.AttachOptions{Exec: exec, Stdin: true, Stdout: true, Stderr: true, StdoutOffset: zero(), StderrOffset: zero()})
		if back.TTY() != tty {
			t.Errorf("a further process with terminal %v is adopted with %v", tty, back.TTY())
		}
		if err := w.Resize(w.soon(), i.ID, exec, 10, 20); err != nil {
			t.Error(err)
		}
		if sizes := len(w.process(i, exec).Sizes); sizes != map[bool]int{true: 1, false: 0}[tty] {
			t.Errorf("terminal %v: its size was set %d times", tty, sizes)
		}
		back.CloseInput()
		back.all(t)
	}
}
