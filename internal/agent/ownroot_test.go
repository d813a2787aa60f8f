// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	agentv1 "github.com/micropod/micropod/api/agent/v1"
	"github.com/micropod/micropod/internal/agent/reap"
)

// fakeInit ends when it is asked to, unless it is deaf.
type fakeInit struct {
	m    *machineLog
	deaf bool
	once sync.Once
	done chan struct{}
}

func (i *fakeInit) end() { i.once.Do(func() { close(i.done) }) }
func (i *fakeInit) PowerOff() error {
	if err := i.m.act("ask init"); err != nil {
		return err
	}
	if !i.deaf {
		i.end()
	}
	return nil
}
func (i *fakeInit) Kill() error           { i.end(); return i.m.act("kill init") }
func (i *fakeInit) Done() <-chan struct{} { return i.done }
func (i *fakeInit) Ending() string        { return "ended" }

func (m *machineLog) StartInit(device string) (Init, error) {
	if err := m.act("init of " + device); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.init = &fakeInit{m: m, deaf: m.deafInit, done: make(chan struct{})}
	return m.init, nil
}

func TestInitOfAUsersDisk(t *testing.T) {
	t.Parallel()
	for name, deaf := range map[string]bool{"obedient": false, "deaf": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMachineLog()
			m.deafInit = deaf
			s := NewServer(Config{Machine: m})
			for range 2 { // a daemon that comes back tells again
				if err := s.startInit("vdc"); err != nil {
					t.Fatal(err)
				}
			}
			s.shutting.Store(true)
			ctx := t.Context()
			if deaf {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, 50*time.Millisecond)
				defer cancel()
			}
			s.stopInit(ctx)
			want := []string{"init of vdc", "ask init"}
			if deaf {
				want = append(want, "kill init")
			}
			if got := m.list(); !slices.Equal(got, want) {
				t.Errorf("acts are %q, want %q", got, want)
			}
		})
	}
}

func TestMachineEndsWithItsInit(t *testing.T) {
	t.Parallel()
	m := newMachineLog()
	s := NewServer(Config{Machine: m})
	if err := s.startInit("vdc"); err != nil {
		t.Fatal(err)
	}
	m.init.end()
	select {
	case <-m.off:
	case <-time.After(10 * time.Second):
		t.Fatal("its init has ended, and the machine has not")
	}
	if got := m.list(); !slices.Contains(got, "sync") {
		t.Errorf("acts are %q: the disks were not synced", got)
	}
}

func TestIdentifyTellsThatInitDidNotStart(t *testing.T) {
	t.Parallel()
	m := newMachineLog()
	m.fail = "init of vdc"
	s := service{NewServer(Config{Machine: m})}
	_, err := s.Identify(t.Context(), &agentv1.IdentifyRequest{
		Entropy: make([]byte, agentv1.MinEntropy), UnixNanos: 1, Hostname: "h", MachineId: strings.Repeat("a", agentv1.MachineIDSize), Root: "vdc",
	})
	if err == nil || !strings.Contains(err.Error(), "init of the user's disk") {
		t.Errorf("Identify: %v", err)
	}
}

func TestNamesOfDisks(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"", "vd", "vdaa", "../vda", "sda", "vda\n"} {
		if _, err := (kernel{}).StartInit(name); err == nil || !strings.Contains(err.Error(), "no name of a disk") {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestEndingsOfInit(t *testing.T) {
	t.Parallel()
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, unix.SIGHUP) // what nohup has ignored would stay so in the children
	defer signal.Stop(caught)
	r := reap.New(reap.Config{})
	defer r.Close()
	for command, want := range map[string]string{
		"exit 3": "ended with code 3", "kill -INT $$": "powered off", "kill -HUP $$": "restarted", "kill -KILL $$": "was ended by SIGKILL",
	} {
		child, err := r.StartCommand(exec.Command("/bin/sh", "-c", command))
		if err != nil {
			t.Fatal(err)
		}
		<-child.Done()
		i := ownInit{child}
		if got := i.Ending(); got != want {
			t.Errorf("%s: %q, want %q", command, got, want)
		}
		if err := i.PowerOff(); err == nil {
			t.Errorf("%s: an init that has ended was asked to power off", command)
		}
	}
	child, err := r.StartCommand(exec.Command("sleep", "100"))
	if err != nil {
		t.Fatal(err)
	}
	if err := (ownInit{child}).PowerOff(); err != nil && !errors.Is(err, unix.ENOENT) {
		t.Errorf("asking a program: %v", err)
	}
	<-child.Done()
}
