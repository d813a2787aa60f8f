// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/micropod/micropod/internal/sealed"
	"github.com/micropod/micropod/internal/vmm"
)

// Wake has a suspended machine run on; one that runs or is paused is no error. Once begun it is carried through
// even when ctx ends. When it fails the machine is Suspended still and Wake can be called again, unless its guest
// ran already: then it is in Error. Errors: *NotFoundError, *StateError (neither suspended nor running), *StepError.
func (s *Service) Wake(ctx context.Context, ref string) error {
	m, err := s.find(ref)
	if err != nil {
		return err
	}
	return s.detach(ctx, m.wake)
}

func (m *machine) wake(ctx context.Context) error {
	ctx, end, err := m.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	switch rec := m.record(); rec.State {
	case Running, Paused:
		return nil
	case Suspended, Suspending:
		return m.wakeUp(ctx)
	default:
		return &StateError{ID: m.id, Action: "wake", State: rec.State, Reason: rec.Reason}
	}
}

// wakeUp is Wake of a suspended machine under the operation lock.
func (m *machine) wakeUp(ctx context.Context) error {
	if m.isDoomed() {
		return &NotFoundError{m.id}
	}
	if r := m.current(); r != nil {
		if err := m.putToSleep(r); err != nil {
			return err
		}
	}
	return m.bringUp(ctx)
}

// awaken restores the machine from what was saved when it was suspended.
func (b *boot) awaken(ctx context.Context) (failed string, err error) {
	if failed, err = carryOut(ctx,
		step{"finding kernel and initramfs", b.find},
		step{"finding the machine's saved state", b.pickSuspended},
		step{"joining the networks", func(ctx context.Context) error { return b.rejoin(ctx, b.asleepIn) }},
	); err != nil {
		return failed, err
	}
	b.joined = b.s.Network.Joined(b.id)
	return b.comeUp(ctx, b.s.RestoreLimit)
}

func (b *boot) pickSuspended(ctx context.Context) error {
	sus := b.record().Suspended
	b.asleepIn = sus
	if now, err := stampDisk(b.diskPath()); err != nil || now != sus.Disk {
		return errors.Join(err, errDiskChanged)
	}
	dir := b.suspendedDir(sus)
	vm := filepath.Join(dir, savedVM)
	if stamps, err := sealed.Stamps(vm); err != nil || !slices.Equal(stamps, sus.Seal) {
		files, err := sealed.Sums(ctx, vm)
		if err != nil {
			return err
		}
		if !slices.Equal(files, sus.VM) {
			return errors.New("the files are not those that were saved")
		}
	}
	if here := b.s.Network.NICs(); sus.Of.NICs != here {
		return &MismatchError{"of its suspended state", "number of network devices", fmt.Sprint(sus.Of.NICs), fmt.Sprint(here)}
	}
	if drift := tscDrift(sus.Of.TSCKHz, b.files.TSCKHz); drift > maxTSCDrift {
		return &MismatchError{"of its suspended state", "time stamp counter", fmt.Sprint(sus.Of.TSCKHz, " kHz"), fmt.Sprint(b.files.TSCKHz, " kHz")}
	}
	b.files.Kernel, b.files.Initrd = filepath.Join(dir, savedKernel), filepath.Join(dir, savedInitrd)
	here, err := b.s.fingerprint(ctx, b.spec.Engine, b.config())
	if err != nil {
		return err
	}
	if here != sus.Of.Fingerprint {
		return &MismatchError{"of its suspended state", "engine and processor", sus.Of.Fingerprint, here}
	}
	return nil
}

// errDiskChanged: a guest ran on from what was saved and ended, or somebody else wrote to the disk.
var errDiskChanged = errors.New("the machine's disk was written to since its memory was saved")

func (m *machine) suspendedDir(sus *suspension) string {
	return filepath.Join(m.s.diskDir(m.id), sus.Dir)
}

// rejoin makes the machine's place in its networks again where a restart of the host took it: the same one.
func (m *machine) rejoin(ctx context.Context, sus *suspension) error {
	if len(sus.Network.Joins) == 0 || m.s.Network.Joined(m.id) != nil {
		return nil
	}
	uid := m.record().UID
	_, err := m.s.Network.Attach(ctx, AttachRequest{ID: m.id, UID: uid, GID: uid, NetworkSpec: sus.Network})
	return err
}

// wakeFailedWith settles a machine that could not be brought back, its VMM being gone.
func (b *boot) wakeFailedWith(reason string) {
	if !b.fitsStill() {
		b.over(b.run, Error, reason)
		return
	}
	b.asleepNow(b.run, wakeReason(reason))
}

// fitsStill says whether the disk is the one of the saved memory.
func (m *machine) fitsStill() bool {
	sus := m.record().Suspended
	now, err := stampDisk(m.diskPath())
	return err == nil && sus != nil && now == sus.Disk
}

// adoptSuspended takes up a machine that an earlier daemon suspended, or was about to.
func (m *machine) adoptSuspended(ctx context.Context, rec record) {
	if rec.Suspended == nil {
		m.doubt("it is recorded as suspended without a saved state")
		return
	}
	if rec.VMM != nil {
		if err := m.endRecorded(ctx, *rec.VMM); err != nil {
			m.doubt("ending the VMM of a suspended machine: " + err.Error())
			return
		}
	}
	m.sleepOn(ctx, rec, rec.Reason)
}

// sleepOn has a machine without a VMM be Suspended.
func (m *machine) sleepOn(ctx context.Context, rec record, reason string) {
	m.mu.Lock()
	m.asleep = &slumber{woken: make(chan struct{}), ended: make(chan struct{})}
	m.mu.Unlock()
	if rec.State != Suspended {
		m.settle(Suspended, reason, func(r *record) { r.VMM, r.Awoken = nil, "" })
	}
	if err := m.rejoin(ctx, rec.Suspended); err != nil {
		m.log.Warn("joining a suspended machine to its networks again; it is tried once more when the machine is woken", "error", err)
	}
}

// adoptWaking takes up a machine that was being brought back. Its guest runs on if it ran already.
func (m *machine) adoptWaking(ctx context.Context, rec record) {
	const why = "the daemon ended while it was brought back"
	if rec.VMM != nil {
		vm, err := m.callEngine(ctx, *rec.VMM)
		if err == nil {
			m.runOnAwoken(ctx, rec, vm)
			return
		}
		if !errors.Is(err, vmm.ErrGone) {
			m.doubt("taking over its VMM: " + err.Error())
			return
		}
	} else if err := m.s.clear(ctx, m.id); err != nil {
		m.doubt("ending what is left of its start: " + err.Error())
		return
	}
	if m.fitsStill() {
		m.sleepOn(ctx, rec, wakeReason(why))
		return
	}
	m.leave()
	m.settle(Error, why, func(r *record) { r.VMM, r.Suspended, r.StoppedAt = nil, nil, time.Now().UTC() })
}

// runOnAwoken takes over the VMM of a machine that was being brought back.
func (m *machine) runOnAwoken(ctx context.Context, rec record, vm vmm.Machine) {
	r := newRun()
	m.mu.Lock()
	r.vm, m.run = vm, r
	m.mu.Unlock()
	m.watch(r)
	m.settle(Running, "", func(rec *record) { rec.Suspended = nil })
	m.log.Info("machine taken over that was being brought back", "pid", rec.VMM.PID)
	m.tellTime(ctx, r)
}
