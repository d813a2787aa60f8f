// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package container_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/micropod/micropod/internal/container"
	"github.com/micropod/micropod/internal/container/ocispec"
)

func TestRunToItsEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := config("echo", "hello", "world")
	c.Env, c.User, c.Init = []string{"A=1"}, "app", true
	i := w.create(c)
	w.state(i.ID, container.Created)
	client := w.attach(i.ID, bothFromStart) // nothing is lost between start and attach
	if _, err := w.Start(w.soon(), i.ID); err != nil {
		t.Fatal(err)
	}
	stdout, stderr, exit := client.all(t)
	if stdout != "hello world\n" || stderr != "to stderr\n" || exit.Code != 0 {
		t.Errorf("the client got %q, %q, %+v", stdout, stderr, exit)
	}
	if out, err := w.logs(i.ID); out != stdout || err != stderr {
		t.Errorf("the log has %q, %q", out, err)
	}
	if e := w.waited(i.ID); e.Code != 0 || e.Reason != "" || e.At.IsZero() {
		t.Errorf("waiting gave %+v", e)
	}
	w.eventually("the machine stops", func() bool { return w.machines.Running() == 0 })
	got := w.state(i.ID, container.Exited)
	if got.Exit == nil || got.PID != 0 || got.Started.IsZero() || got.Finished.Before(got.Started) || strings.Join(got.Args, " ") != "echo hello world" {
		t.Errorf("the container is %+v", got)
	}
}

func TestGuestIsAskedForWhatTheUserAsked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := config("sleep")
	c.Env, c.User, c.Init, c.GroupAdd, c.Stdin = []string{"A=1"}, "app", true, []string{"audio"}, true
	i := w.started(c)
	r := w.process(i, "").Request
	if r.Id != i.ID || r.User != "app" || !r.Init || len(r.GroupAdd) != 1 || !r.Stdio.Stdin || len(r.Files) != 3 || r.Rootfs.ImageSlot == r.Rootfs.ScratchSlot {
		t.Errorf("the guest was asked for %v", r)
	}
	if env := strings.Join(w.process(i, "").Spec.Env, " "); !strings.Contains(env, "A=1") || !strings.Contains(env, "FROM=image") {
		t.Errorf("the environment is %q", env)
	}
	if got := w.state(i.ID, container.Running); got.PID == 0 || !got.Running() {
		t.Errorf("it runs as %+v", got)
	}
}

func TestStartThatFails(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	for name, test := range map[string]struct {
		command string
		fail    string
		code    int
	}{
		"command not found":      {"nonesuch", "", 127},
		"command not executable": {"/etc/passwd", "", 126},
		"machine does not boot":  {"true", "Start", 0},
		"agent fails":            {"true", "StartContainer", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			i := w.create(config(test.command))
			client := w.attach(i.ID, bothFromStart)
			if test.fail != "" {
				w.machines.Fail[test.fail] = boom
			}
			_, err := w.Start(w.soon(), i.ID)
			var failed *container.StartError
			if test.code != 0 && (!errors.As(err, &failed) || failed.ExitCode != test.code || !strings.Contains(err.Error(), test.command)) {
				t.Errorf("got %v, want exit code %d and the command", err, test.code)
			}
			if test.code == 0 && !errors.Is(err, boom) {
				t.Errorf("got %v, want boom", err)
			}
			<-client.done
			if client.err == nil {
				t.Error("the client that waited for the start was not told")
			}
			got := w.state(i.ID, container.Error)
			if got.Error == "" || got.Exit == nil || got.Exit.Code != uint32(max(test.code, 125)) && test.code != 126 && test.code != 127 {
				t.Errorf("the container tells %+v, %q", got.Exit, got.Error)
			}
			if w.machines.Running() != 0 {
				t.Error("the machine still runs")
			}
			if e := w.waited(i.ID); e.Code == 0 {
				t.Errorf("waiting gave %+v", e)
			}
			if _, err := w.Start(w.soon(), i.ID); (err == nil) != (test.fail != "") {
				t.Errorf("starting again gave %v", err)
			}
		})
	}
}

func TestStartOfAClientThatLeft(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	i := w.create(config("sleep"))
	left := errors.New("ctrl-c")
	for _, method := range []string{"Start", "StartContainer"} {
		ctx, cancel := context.WithCancelCause(t.Context())
		w.machines.Lock()
		w.machines.Before = func(m string) {
			if m == method {
				cancel(left)
			}
		}
		w.machines.Unlock()
		if _, err := w.Start(ctx, i.ID); !errors.Is(err, left) {
			t.Errorf("left at %s: got %v", method, err)
		}
		w.state(i.ID, container.Error)
		if w.machines.Running() != 0 {
			t.Errorf("left at %s: the machine still runs", method)
		}
	}
}

func TestStates(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	i := w.create(config("sleep"))
	var wrong *container.StateError
	if err := w.Kill(w.soon(), i.ID, ""); !errors.As(err, &wrong) || !strings.Contains(wrong.Remediation(), "start "+i.Name) {
		t.Errorf("killing what was not started gave %v", err)
	}
	if _, err := w.Exec(w.soon(), i.ID, container.ExecConfig{Command: []string{"true"}}); !errors.As(err, &wrong) {
		t.Errorf("exec in what was not started gave %v", err)
	}
	if _, err := w.Stop(w.soon(), i.ID, container.StopOptions{}); err != nil {
		t.Errorf("stopping what was not started gave %v; it is no error", err)
	}
	if _, err := w.Start(w.soon(), i.ID); err != nil {
		t.Fatal(err)
	}
	if again, err := w.Start(w.soon(), i.ID); err != nil || again.State != container.Running {
		t.Errorf("starting what runs gave %v, %v; it is no error", again.State, err)
	}
	if _, err := w.Remove(w.soon(), i.ID, false); !errors.As(err, &wrong) || !strings.Contains(wrong.Remediation(), "-f") {
		t.Errorf("removing what runs gave %v", err)
	}
	w.state(i.ID, container.Running)
	if wrong.Error() == "" || container.State(99).String() != "state(99)" || new(container.State).UnmarshalText([]byte("new")) == nil {
		t.Error("states do not print or read as they should")
	}
}

func TestStop(t *testing.T) {
	t.Parallel()
	short := 20 * time.Millisecond
	none := time.Duration(0)
	for name, test := range map[string]struct {
		command string
		options container.StopOptions
		want    container.Exit
	}{
		"by SIGTERM":            {"sleep", container.StopOptions{}, container.Exit{Code: 143, Signal: 15}},
		"by a signal asked for": {"sleep", container.StopOptions{Signal: "INT"}, container.Exit{Code: 130, Signal: 2}},
		"by SIGKILL":            {"stubborn", container.StopOptions{Timeout: &short}, container.Exit{Code: 137, Signal: 9}},
		"at once":               {"sleep", container.StopOptions{Timeout: &none}, container.Exit{Code: 137, Signal: 9}},
		"with the machine":      {"wedged", container.StopOptions{Timeout: &short}, container.Exit{Code: 137, Signal: 9, Reason: "ended by force"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			i := w.started(config(test.command))
			client := w.attach(i.ID, container.AttachOptions{Stdout: true, Stderr: true})
			got, err := w.Stop(w.soon(), i.ID, test.options)
			if err != nil || got.State != container.Exited || w.machines.Running() != 0 {
				t.Errorf("stopped: %v, %v, %d machines run", got.State, err, w.machines.Running())
			}
			_, _, exit := client.all(t)
			exit.At = time.Time{}
			if exit != test.want {
				t.Errorf("the exit is %+v, want %+v", exit, test.want)
			}
			if _, err := w.Stop(w.soon(), i.ID, test.options); err != nil {
				t.Errorf("stopping again gave %v", err)
			}
		})
	}
	w := newWorld(t)
	i := w.started(config("sleep"))
	var invalid *container.InvalidError
	if _, err := w.Stop(w.soon(), i.ID, container.StopOptions{Signal: "NOPE"}); !errors.As(err, &invalid) {
		t.Errorf("an unknown signal gave %v", err)
	}
	w.state(i.ID, container.Running)
	if err := w.Kill(w.soon(), i.ID, "NOPE"); !errors.As(err, &invalid) {
		t.Errorf("an unknown signal gave %v", err)
	}
}

func TestKill(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	i := w.started(config("sleep"))
	client := w.attach(i.ID, bothFromStart)
	if err := w.Kill(w.soon(), i.ID, "USR1"); err != nil {
		t.Fatal(err)
	}
	w.eventually("the signal arrives", func() bool { return strings.Contains(client.output(), "signal 10") })
	if err := w.Kill(w.soon(), i.ID, ""); err != nil {
		t.Fatal(err)
	}
	if _, _, exit := client.all(t); exit.Code != 137 || exit.Signal != 9 {
		t.Errorf("killed, the exit is %+v", exit)
	}
}

func TestStopGoesOnWithoutItsClient(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	i := w.started(config("stubborn"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wait := 50 * time.Millisecond
	if _, err := w.Stop(ctx, i.ID, container.StopOptions{Timeout: &wait}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if e := w.waited(i.ID); e.Code != 137 {
		t.Errorf("the exit is %+v", e)
	}
}

func TestRestart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := config("sleep")
	c.AutoRemove = true
	i := w.started(c)
	got, err := w.Restart(w.soon(), i.ID, container.StopOptions{})
	if err != nil || got.State != container.Running || got.Exit != nil {
		t.Fatalf("restarted: %+v, %v", got, err)
	}
	if _, err := w.Stop(w.soon(), i.ID, container.StopOptions{}); err != nil {
		t.Fatal(err)
	}
	w.gone(i.ID) // only now
	stopped := w.create(config("sleep"))
	if got, err := w.Restart(w.soon(), stopped.ID, container.StopOptions{}); err != nil || got.State != container.Running {
		t.Errorf("restarting what was not started gave %v, %v", got.State, err)
	}
}

func TestAutoRemove(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, command := range [][]string{{"exit", "3"}, {"nonesuch"}} {
		c := config(command...)
		c.AutoRemove = true
		i := w.create(c)
		client := w.attach(i.ID, bothFromStart)
		_, err := w.Start(w.soon(), i.ID)
		<-client.done
		if (err == nil) != (command[0] == "exit") || client.exit.Code != 3 && err == nil {
			t.Errorf("%v: started with %v, ended with %+v, %v", command, err, client.exit, client.err)
		}
		w.gone(i.ID)
	}
	w.eventually("nothing is left", func() bool { return w.machines.Count() == 0 })
	w.eventually("no folder is left", func() bool {
		left, err := os.ReadDir(w.config.Dir)
		return len(left) == 0 && (err == nil || errors.Is(err, fs.ErrNotExist))
	})
	w.nothingLeft()
}

func TestRemoveByForceInAnyState(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(*world) string{
		"created": func(w *world) string { return w.create(config("sleep")).ID },
		"running": func(w *world) string { return w.started(config("stubborn")).ID },
		"wedged":  func(w *world) string { return w.started(config("wedged")).ID },
		"ended": func(w *world) string {
			i := w.started(config("true"))
			w.waited(i.ID)
			return i.ID
		},
		"failed": func(w *world) string {
			i := w.create(config("nonesuch"))
			_, _ = w.Start(w.soon(), i.ID)
			return i.ID
		},
		"stopping": func(w *world) string {
			i := w.started(config("stubborn"))
			go func() { _, _ = w.Stop(context.Background(), i.ID, container.StopOptions{}) }()
			w.eventually("it stops", func() bool { i, _ := w.Get(i.ID); return i.State == container.Stopping })
			return i.ID
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			id := prepare(w)
			if _, err := w.Remove(w.soon(), id, true); err != nil {
				t.Fatal(err)
			}
			w.nothingLeft()
			var not *container.NotFoundError
			if _, err := w.Remove(w.soon(), id, true); !errors.As(err, &not) {
				t.Errorf("removing it again gave %v", err)
			}
		})
	}
}

// TestRemoveByForceCutsAStart that hangs in its machine's boot.
func TestRemoveByForceCutsAStart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	i := w.create(config("sleep"))
	booting, release := make(chan struct{}), make(chan struct{})
	w.machines.Before = func(m string) {
		if m == "StartContainer" {
			close(booting)
			<-release
		}
	}
	started := make(chan error)
	go func() {
		_, err := w.Start(context.Background(), i.ID)
		started <- err
	}()
	<-booting
	removed := make(chan error)
	go func() {
		_, err := w.Remove(context.Background(), i.ID, true)
		removed <- err
	}()
	close(release) // before or after the removal interrupts: it must work either way
	if err := <-started; err != nil && !errors.Is(err, container.ErrInterrupted) {
		t.Errorf("the start ended with %v", err)
	}
	if err := <-removed; err != nil {
		t.Errorf("the removal ended with %v", err)
	}
	w.nothingLeft()
}

func TestRemoveThatFailsCanBeTriedAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	boom := errors.New("boom")
	i := w.create(config())
	w.machines.Fail["Delete"] = boom
	if _, err := w.Remove(w.soon(), i.ID, true); !errors.Is(err, boom) {
		t.Errorf("got %v", err)
	}
	w.state(i.ID, container.Created)
	if _, err := w.Remove(w.soon(), i.ID, true); err != nil {
		t.Errorf("again: %v", err)
	}
	w.nothingLeft()
}

func TestWhoWaitsForAStartIsToldOfTheRemoval(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	i := w.create(config())
	client := w.attach(i.ID, bothFromStart)
	waited := make(chan error)
	go func() {
		_, err := w.Wait(context.Background(), i.ID, "")
		waited <- err
	}()
	if _, err := w.Remove(w.soon(), i.ID, false); err != nil {
		t.Fatal(err)
	}
	<-client.done
	if !errors.Is(client.err, container.ErrRemoved) {
		t.Errorf("the client was told %v", client.err)
	}
	var not *container.NotFoundError
	if err := <-waited; !errors.Is(err, container.ErrRemoved) && !errors.As(err, &not) {
		t.Errorf("who waited was told %v", err)
	}
}

func TestMachineThatDiesUnderAContainer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	i := w.started(config("sleep"))
	client := w.attach(i.ID, bothFromStart)
	w.machines.Crash(i.MachineID, "guest crashed")
	_, _, exit := client.all(t)
	if exit.Code != 255 || exit.Reason != "machine ended: guest crashed" {
		t.Errorf("the exit is %+v", exit)
	}
	w.state(i.ID, container.Exited)
	if _, err := w.Start(w.soon(), i.ID); err != nil {
		t.Errorf("it does not start again: %v", err)
	}
}

func TestDeathByLackOfMemoryIsTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	sub := w.config.Events.Subscribe(time.Time{})
	defer sub.Close()
	i := w.started(config("oom"))
	if e := w.waited(i.ID); e.Code != 137 || !e.OOMKilled {
		t.Errorf("the exit is %+v", e)
	}
	var actions []string
	for e := range sub.Events {
		actions = append(actions, e.Action)
		if e.Action == "die" {
			break
		}
	}
	if got := strings.Join(actions, " "); got != "create start oom die" {
		t.Errorf("events are %q", got)
	}
}

func TestStartAgainKeepsTheLogAndBeginsAnew(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	i := w.started(config("echo", "one"))
	w.waited(i.ID)
	client := w.attach(i.ID, container.AttachOptions{Stdout: true}) // start -a
	if _, err := w.Start(w.soon(), i.ID); err != nil {
		t.Fatal(err)
	}
	if stdout, _, _ := client.all(t); stdout != "one\n" {
		t.Errorf("the client of the second run got %q", stdout)
	}
	if stdout, _ := w.logs(i.ID); stdout != "one\none\n" {
		t.Errorf("the log has %q", stdout)
	}
	back := w.attach(i.ID, bothFromStart) // a client that comes back to the run that is over
	if _, _, exit := back.all(t); exit.Code != 0 {
		t.Errorf("coming back gave %+v", exit)
	}
}

func TestSecurityWarningsReachTheUser(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, warnings, err := w.Create(w.soon(), container.Config{Image: "box", Config: ocispec.Config{
		SecurityOpt: []string{`seccomp={"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdri"],"action":"SCMP_ACT_ERRNO"}]}`},
	}}, nil)
	if err != nil || len(warnings) != 1 {
		t.Errorf("got warnings %q, %v", warnings, err)
	}
}
