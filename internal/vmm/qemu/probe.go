// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/micropod/micropod/internal/vmm"
	"github.com/micropod/micropod/internal/vmm/process"
)

const (
	kvmDevice   = "/dev/kvm"
	answerFile  = "qemu-kvm.json" // in Config.StateDir
	probeMemory = 256 * mib
)

// Answer says whether KVM runs a guest on this host.
type Answer struct {
	Usable bool
	Why    string // a clause for people, such as "the guest was not up within 5s"
}

// errUnknown means that there is no guest to probe with.
var errUnknown = errors.New("no guest kernel is known to probe with")

// Probe tells whether KVM works, by booting a guest under it unless that was done
// before in this boot of the host with the same QEMU. A /dev/kvm that opens proves
// nothing: some cannot run a stock kernel.
func (e *Engine) Probe(ctx context.Context) (Answer, error) { return e.probe(ctx, Guest{}) }

// accel decides how a machine's code is run.
func (e *Engine) accel(ctx context.Context, own Guest) (Accel, error) {
	if e.config.Accel != AccelAuto {
		return e.config.Accel, nil
	}
	answer, err := e.probe(ctx, own)
	if err != nil {
		return "", fmt.Errorf("probing KVM: %w", err)
	}
	if answer.Usable {
		return AccelKVM, nil
	}
	return AccelTCG, nil
}

func (e *Engine) probe(ctx context.Context, own Guest) (Answer, error) {
	e.probing.Lock()
	defer e.probing.Unlock()
	if e.answer != nil {
		return *e.answer, nil
	}
	f, err := os.OpenFile(kvmDevice, os.O_RDWR, 0)
	if err != nil {
		return e.learn(Answer{Why: err.Error()}), nil
	}
	f.Close()
	if answer, ok := e.kept(); ok {
		return e.learn(answer), nil
	}
	if e.config.ProbeGuest != nil {
		if own, err = e.config.ProbeGuest(ctx); err != nil {
			return Answer{}, fmt.Errorf("making a guest to probe with: %w", err)
		}
	}
	if own.Kernel == "" {
		return Answer{}, errUnknown
	}
	answer, err := e.boot(ctx, own)
	if err != nil {
		return Answer{}, err
	}
	e.keep(answer)
	return e.learn(answer), nil
}

func (e *Engine) learn(a Answer) Answer {
	e.answer = &a
	e.log.Info("KVM probed", "usable", a.Usable, "why", a.Why)
	return a
}

// boot starts a guest under KVM and waits for it to open the guest channel. An error
// means that it could not be tried.
func (e *Engine) boot(ctx context.Context, g Guest) (Answer, error) {
	dir, err := os.MkdirTemp("", "micropod-probe")
	if err != nil {
		return Answer{}, err
	}
	defer os.RemoveAll(dir)
	c := vmm.Config{
		ID: filepath.Base(dir), Dir: dir, VCPUs: 1, Memory: probeMemory,
		Kernel: g.Kernel, Initrd: g.Initrd, Args: g.Args, CgroupParent: "micropod-probe",
	}
	c.ID = "probe"
	began := time.Now()
	limit, cancel := context.WithTimeout(ctx, e.config.ProbeTimeout)
	defer cancel()
	m, err := e.start(limit, c, AccelKVM)
	if err != nil {
		if ctx.Err() != nil {
			return Answer{}, ctx.Err()
		}
		return Answer{Why: err.Error()}, nil
	}
	defer m.Close()
	defer m.Kill(context.WithoutCancel(ctx))
	select {
	case <-m.portOpen:
		return Answer{Usable: true, Why: fmt.Sprintf("a guest was up after %v", time.Since(began).Round(time.Millisecond))}, nil
	case <-m.ended:
		return Answer{Why: m.exit.Reason}, nil
	case <-limit.Done():
		if ctx.Err() != nil {
			return Answer{}, ctx.Err()
		}
		return Answer{Why: fmt.Sprintf("it opens, but a guest was not up within %v", e.config.ProbeTimeout)}, nil
	}
}

// keptAnswer is valid for one boot of the host and one QEMU.
type keptAnswer struct {
	Answer
	BootID   string
	Binary   string
	Size     int64
	Modified time.Time
}

// key is the part of a kept answer that must agree.
func (e *Engine) key() (keptAnswer, error) {
	boot, err := process.BootID()
	if err != nil {
		return keptAnswer{}, err
	}
	info, err := os.Stat(e.binary)
	if err != nil {
		return keptAnswer{}, err
	}
	return keptAnswer{BootID: boot, Binary: e.binary, Size: info.Size(), Modified: info.ModTime().UTC()}, nil
}

func (e *Engine) kept() (Answer, bool) {
	if e.config.StateDir == "" {
		return Answer{}, false
	}
	b, err := os.ReadFile(filepath.Join(e.config.StateDir, answerFile))
	if err != nil {
		return Answer{}, false
	}
	var k keptAnswer
	key, err := e.key()
	if err != nil || json.Unmarshal(b, &k) != nil {
		return Answer{}, false
	}
	key.Answer = k.Answer
	return k.Answer, k == key
}

// keep writes the answer down; that it could not is only worth a warning.
func (e *Engine) keep(a Answer) {
	if e.config.StateDir == "" {
		return
	}
	k, err := e.key()
	if err == nil {
		k.Answer = a
		var b []byte
		if b, err = json.Marshal(k); err == nil {
			err = os.WriteFile(filepath.Join(e.config.StateDir, answerFile), b, 0o600)
		}
	}
	if err != nil {
		e.log.Warn("keeping the answer of the KVM probe", "error", err)
	}
}

// kvmNests says whether the KVM module whose folder is below modules lets guests
// have virtual machines of their own (the kernel's Documentation/virt/kvm/x86/running-nested-guests.rst).
func kvmNests(modules string) bool {
	for _, name := range []string{"kvm_intel", "kvm_amd"} {
		b, err := os.ReadFile(filepath.Join(modules, name, "parameters/nested"))
		if value := strings.TrimSpace(string(b)); err == nil && (value == "Y" || value == "1") {
			return true
		}
	}
	return false
}
