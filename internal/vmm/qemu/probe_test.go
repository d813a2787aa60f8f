// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func needKVM(t *testing.T) {
	t.Helper()
	f, err := os.OpenFile(kvmDevice, os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no KVM to probe: %v", err)
	}
	f.Close()
}

// TestProbeOfGuestThatNeverComesUp: the limit holds, and the answer is kept.
func TestProbeOfGuestThatNeverComesUp(t *testing.T) {
	t.Parallel()
	needKVM(t)
	e := fakeQEMU(t, "exec sleep 60")
	state := t.TempDir()
	guests := 0
	e.config = Config{Accel: AccelAuto, StateDir: state, ProbeTimeout: 100 * time.Millisecond, ProbeGuest: func(context.Context) (Guest, error) {
		guests++
		c := machineConfig(t, "probe")
		return Guest{Kernel: c.Kernel, Initrd: c.Initrd}, nil
	}}
	began := time.Now()
	answer, err := e.Probe(t.Context())
	if err != nil || answer.Usable || answer.Why == "" {
		t.Fatalf("Probe: %+v (%v), want unusable with a reason", answer, err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the probe took %v, its limit was 100 ms", took)
	}
	again := fakeQEMU(t, "") // as after a restart of the daemon
	again.binary, again.config = e.binary, e.config
	for _, e := range []*Engine{e, again} {
		if kept, err := e.Probe(t.Context()); err != nil || kept != answer {
			t.Errorf("second Probe: %+v (%v), want the same answer", kept, err)
		}
	}
	if accel, err := again.accel(t.Context(), Guest{}); err != nil || accel != AccelTCG {
		t.Errorf("accelerator %s (%v), want tcg", accel, err)
	}
	if guests != 1 {
		t.Errorf("%d boots, want one: the answer is kept", guests)
	}
	wantAskedAgain(t, e, state, &guests)
}

// wantAskedAgain checks that an answer of another boot, or another QEMU, is not believed.
func wantAskedAgain(t *testing.T, e *Engine, state string, guests *int) {
	t.Helper()
	path := filepath.Join(state, answerFile)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string]func(*keptAnswer){
		"another boot":   func(k *keptAnswer) { k.BootID = "another" },
		"another binary": func(k *keptAnswer) { k.Size++ },
		"no answer":      nil,
	} {
		b := []byte("garbage")
		if edit != nil {
			var k keptAnswer
			if err := json.Unmarshal(whole, &k); err != nil {
				t.Fatal(err)
			}
			edit(&k)
			b, _ = json.Marshal(k)
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		e.answer = nil
		before := *guests
		if _, err := e.Probe(t.Context()); err != nil || *guests != before+1 {
			t.Errorf("%s: %d boots more (%v), want one", name, *guests-before, err)
		}
	}
}

func TestProbeNotPossible(t *testing.T) {
	t.Parallel()
	needKVM(t)
	e := fakeQEMU(t, "exit 1")
	e.config = Config{Accel: AccelAuto, ProbeTimeout: time.Second}
	if _, err := e.Probe(t.Context()); !errors.Is(err, errUnknown) {
		t.Errorf("without a guest: %v, want errUnknown", err)
	}
	broken := errors.New("no kernel")
	e.config.ProbeGuest = func(context.Context) (Guest, error) { return Guest{}, broken }
	if _, err := e.Probe(t.Context()); !errors.Is(err, broken) {
		t.Errorf("with a guest that cannot be made: %v", err)
	}
	c := machineConfig(t, "probe")
	e.config.ProbeGuest = func(context.Context) (Guest, error) { return Guest{Kernel: c.Kernel, Initrd: c.Initrd}, nil }
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := e.Probe(cancelled); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if e.answer != nil {
		t.Errorf("an answer was learnt from what could not be tried: %+v", e.answer)
	}
	e.config.Accel = AccelKVM
	if accel, err := e.accel(t.Context(), Guest{}); err != nil || accel != AccelKVM {
		t.Errorf("accelerator %s (%v), want kvm as configured", accel, err)
	}
}

func TestKVMNests(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]bool{"Y\n": true, "1\n": true, "N\n": false, "0\n": false, "": false} {
		dir := t.TempDir()
		if err := os.MkdirAll(filepath.Join(dir, "kvm_amd/parameters"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "kvm_amd/parameters/nested"), []byte(value), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := kvmNests(dir); got != want {
			t.Errorf("kvmNests with %q = %t, want %t", value, got, want)
		}
	}
}
