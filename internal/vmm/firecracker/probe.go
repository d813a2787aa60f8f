// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package firecracker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/micropod/micropod/internal/vmm"
	"github.com/micropod/micropod/internal/vmm/process"
)

// Answer says whether this engine can run machines here.
type Answer struct {
	Usable bool
	Why    string // for people
}

// Probe boots a small machine, once in a boot of the host where Config.StateDir is set. It returns an error when it could not find out.
func (e *Engine) Probe(ctx context.Context) (Answer, error) {
	e.probing.Lock()
	defer e.probing.Unlock()
	if e.answer != nil {
		return *e.answer, nil
	}
	kvm, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return Answer{Why: err.Error()}, nil // may be mended at any time
	}
	if err := kvm.Close(); err != nil {
		return Answer{}, err
	}
	if a, ok := e.kept(); ok {
		e.answer = &a
		return a, nil
	}
	if e.config.ProbeGuest == nil {
		return Answer{}, errors.New("no guest to probe with")
	}
	g, err := e.config.ProbeGuest(ctx)
	if err != nil {
		return Answer{}, fmt.Errorf("preparing the probe's guest: %w", err)
	}
	a, err := e.probe(ctx, g)
	if err == nil {
		e.answer = &a
		e.keep(a)
	}
	return a, err
}

func (e *Engine) probe(ctx context.Context, g Guest) (Answer, error) {
	dir, err := os.MkdirTemp(e.config.StateDir, "probe-")
	if err != nil {
		return Answer{}, err
	}
	defer os.RemoveAll(dir)
	limited, cancel := context.WithTimeout(ctx, e.config.ProbeTimeout)
	defer cancel()
	began := time.Now()
	vm, err := e.Start(limited, vmm.Config{
		ID: fmt.Sprintf("probe-%d", os.Getpid()), Dir: dir, VCPUs: 1, Memory: 128 * mib, Kernel: g.Kernel, Initrd: g.Initrd, Args: g.Args,
	})
	if ctx.Err() != nil {
		return Answer{}, context.Cause(ctx)
	}
	if err != nil {
		return Answer{Why: "a probe machine does not start: " + err.Error()}, nil
	}
	m := vm.(*machine)
	defer func() {
		if err := errors.Join(vm.Kill(context.WithoutCancel(ctx)), vm.Close()); err != nil {
			e.log.Error("ending the probe's machine", "error", err)
		}
	}()
	select {
	case conn := <-m.guests:
		_ = conn.Close()
		return Answer{true, fmt.Sprintf("a probe machine was up after %v", time.Since(began).Round(time.Millisecond))}, nil
	case <-m.process.Exited:
		return Answer{Why: "a probe machine ended: " + m.lastWords()}, nil
	case <-limited.Done():
		if ctx.Err() != nil {
			return Answer{}, context.Cause(ctx)
		}
		return Answer{Why: fmt.Sprintf("a probe machine was not up after %v: the host's virtualisation cannot run a stock kernel", e.config.ProbeTimeout)}, nil
	}
}

// keptAnswer is valid for one boot of the host and one Firecracker.
type keptAnswer struct {
	Answer
	BootID, Binary, Version string
	Jailed                  bool
}

// answerFile is in Config.StateDir.
const answerFile = "firecracker-probe.json"

func (e *Engine) key(a Answer) (keptAnswer, error) {
	boot, err := process.BootID()
	return keptAnswer{a, boot, e.binary, e.version.String(), e.jailer != ""}, err
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
	if json.Unmarshal(b, &k) != nil {
		return Answer{}, false
	}
	want, err := e.key(k.Answer)
	return k.Answer, err == nil && k == want
}

// keep writes the answer down; that it could not is only worth a warning.
func (e *Engine) keep(a Answer) {
	if e.config.StateDir == "" {
		return
	}
	k, err := e.key(a)
	if err == nil {
		var b []byte
		if b, err = json.Marshal(k); err == nil {
			err = os.WriteFile(filepath.Join(e.config.StateDir, answerFile), b, 0o600)
		}
	}
	if err != nil {
		e.log.Warn("keeping the probe's answer", "error", err)
	}
}

// Fingerprint implements vmm.Fingerprinter.
func (e *Engine) Fingerprint(context.Context, vmm.Config) (string, error) {
	cpu, err := vmm.HostCPU("/proc/cpuinfo")
	if err != nil {
		return "", err
	}
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	return fmt.Sprintf("firecracker %s, snapshots %d, kvm of %s, %s", e.version, snapshotFormat, bytes.TrimSpace(release), cpu), err
}
