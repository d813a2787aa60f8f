// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/micropod/micropod/internal/fault"
	"github.com/micropod/micropod/internal/sealed"
	"github.com/micropod/micropod/internal/sparse"
)

// Suspended machines. Memory and devices go into a folder beside the machine's disk, which stays where it is: nothing
// runs that could write to it. The record's change to Suspending is what decides: before it the VMM is there and
// goes on, from it on the saved state is whole and synced, and the VMM only has to end. A later start restores that
// state if the disk is as it was then; a VMM that ran on and died leaves a disk that the memory does not fit any more.
//
// The machine keeps its place in its networks, and so its addresses and published ports; after a restart of the
// host it is given the same again. Whoever waits for its end, or for a session with its agent, goes on waiting.

// suspendedPrefix begins the names of the folders of saved states, beside the disk.
const suspendedPrefix = "suspended-"

// suspension is what a suspended machine goes on from. It is part of the record: fields are added, never renamed.
type suspension struct {
	Dir  string // name of the folder, beside the disk
	At   time.Time
	Of   saved
	VM   []sealed.File  // of the engine's part
	Seal []sealed.Stamp // likewise: those that are as they were need not be summed
	Disk diskStamp
	// Network asks for the very place that the machine has.
	Network NetworkSpec
}

// diskStamp tells whether a disk was written to. Times of files last over restarts of the host.
type diskStamp struct {
	Size     int64
	Modified syscall.Timespec
}

// slumber is what outlives the run of a machine that is suspended.
type slumber struct {
	woken chan struct{} // closed when the machine runs again, or never will from what was saved
	ended chan struct{} // the run's, and the next one's
}

// ErrInUse is returned by Suspend when its condition did not hold any more.
var ErrInUse = errors.New("the machine is in use")

// Suspend saves a running machine to disk and ends its VMM; Wake or Start have it go on. idle is
// asked when the vCPUs stand still already: when it says no, the machine runs on and ErrInUse is returned. Once begun
// it is carried through even when ctx ends. Errors: *NotFoundError, *StateError (not Running), *StepError,
// after which the machine runs on unless its VMM could not be ended.
func (s *Service) Suspend(ctx context.Context, ref string, idle func() bool) error {
	m, err := s.find(ref)
	if err != nil {
		return err
	}
	return s.detach(ctx, func(life context.Context) error { return m.suspend(life, idle) })
}

func (m *machine) suspend(ctx context.Context, idle func() bool) error {
	ctx, end, err := m.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	if rec := m.record(); rec.State != Running || m.isDoomed() {
		return &StateError{ID: m.id, Action: "suspend", State: rec.State, Reason: rec.Reason}
	}
	began := time.Now()
	m.sweepSuspended()
	r := m.current()
	dir, err := os.MkdirTemp(m.s.diskDir(m.id), suspendedPrefix)
	if err != nil {
		return &StepError{ID: m.id, Step: "making the folder for the machine's state", Err: err}
	}
	if step, err := m.layDown(ctx, r, dir, idle); err != nil {
		m.sweepSuspended()
		if errors.Is(err, ErrInUse) {
			return err
		}
		return &StepError{ID: m.id, Step: step, Err: err}
	}
	fault.Point("machine suspend: recorded")
	if err := m.putToSleep(r); err != nil {
		return err
	}
	m.log.Info("machine suspended", "took", time.Since(began).Round(time.Millisecond))
	return nil
}

// layDown saves the machine and records that; on error it runs on.
func (m *machine) layDown(ctx context.Context, r *run, dir string, idle func() bool) (step string, err error) {
	rec := m.record()
	of, err := m.whatIsSaved(ctx, rec)
	if err != nil {
		return "telling what the machine's state depends on", err
	}
	if err := linkBootFiles(ctx, dir, rec.VMM.Config.Kernel, rec.VMM.Config.Initrd); err != nil {
		return "keeping kernel and initramfs", err
	}
	if err := m.change(Pausing, "suspend", nil); err != nil {
		return "recording that the machine is to be suspended", err
	}
	sus := suspension{Dir: filepath.Base(dir), Of: of, Network: m.sameNetwork()}
	if step, err = m.saveState(ctx, r, dir, &sus, idle); err == nil {
		m.mu.Lock()
		m.asleep, r.rests = &slumber{woken: make(chan struct{}), ended: r.ended}, true
		m.mu.Unlock()
		sus.At = time.Now().UTC()
		step, err = "recording the machine as suspended", m.change(Suspending, "suspend", func(r *record) { r.Suspended = &sus })
	}
	if err == nil {
		return "", nil
	}
	m.mu.Lock()
	r.rests = false
	m.mu.Unlock()
	undone := m.runOn(r)
	m.rouse(false)
	m.tellTime(ctx, r)
	return step, errors.Join(err, undone)
}

// saveState fills dir, and makes all durable.
func (m *machine) saveState(ctx context.Context, r *run, dir string, sus *suspension, idle func() bool) (step string, err error) {
	if err := r.vm.Pause(ctx); err != nil {
		return "stopping the vCPUs", err
	}
	if !idle() {
		return "", ErrInUse
	}
	vm := filepath.Join(dir, savedVM)
	if err := os.Mkdir(vm, 0o700); err != nil {
		return "making the folder for memory and devices", err
	}
	if err := r.vm.Snapshot(ctx, vm); err != nil {
		return "saving memory and devices", err
	}
	if sus.VM, err = sealed.Sums(ctx, vm); err != nil {
		return "summing memory and devices", err
	}
	paths := []string{m.diskPath(), vm, dir, m.s.diskDir(m.id)}
	for _, f := range sus.VM {
		paths = append(paths, filepath.Join(vm, f.Name))
	}
	if err := syncPaths(paths); err != nil {
		return "writing memory and devices out", err
	}
	if sus.Seal, err = sealed.Stamps(vm); err != nil {
		return "sealing memory and devices", err
	}
	if sus.Disk, err = stampDisk(m.diskPath()); err != nil {
		return "looking at the disk", err
	}
	fault.Point("machine suspend: saved")
	if !idle() {
		return "", ErrInUse
	}
	return "", nil
}

// putToSleep ends the VMM of a machine whose state is saved. When that fails the machine stays in Suspending; the
// next to wake or stop it tries again.
func (m *machine) putToSleep(r *run) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(m.s.life), killLimit)
	defer cancel()
	if err := r.vm.Kill(ctx); err != nil {
		return &StepError{ID: m.id, Step: "ending the VMM of a suspended machine", Err: err}
	}
	select {
	case <-r.gone:
	case <-m.s.life.Done():
		return ErrShutdown // the next daemon finds it gone
	case <-ctx.Done():
		return &StepError{ID: m.id, Step: "waiting for the VMM's end", Err: ctx.Err()}
	}
	fault.Point("machine suspend: VMM gone")
	m.asleepNow(r, "")
	return nil
}

// asleepNow ends a run whose VMM is gone, and which is to go on from what is saved.
func (m *machine) asleepNow(r *run, reason string) {
	if r.vm != nil {
		if err := r.vm.Close(); err != nil {
			m.log.Error("freeing what the engine held", "error", err)
		}
	}
	m.settle(Suspended, reason, func(rec *record) { rec.VMM, rec.Awoken = nil, "" })
	m.mu.Lock()
	m.run = nil
	release := r.release
	m.mu.Unlock()
	if release != nil {
		release()
	}
	m.sweepSuspended()
}

// rouse tells those that wait for a suspended machine that it runs again or, with over, that it ended.
func (m *machine) rouse(over bool) {
	m.mu.Lock()
	z, r := m.asleep, m.run
	m.asleep = nil
	m.mu.Unlock()
	if z == nil {
		return
	}
	close(z.woken)
	if over && r == nil {
		close(z.ended)
	}
}

// giveUpSleep ends a suspended machine without waking it. The operation lock is held.
func (m *machine) giveUpSleep(reason string) {
	m.leave()
	m.settle(Stopped, reason, func(r *record) { r.Suspended, r.StoppedAt = nil, time.Now().UTC() })
	m.rouse(true)
	m.sweepSuspended()
}

// sweepSuspended removes saved states that nothing needs.
func (m *machine) sweepSuspended() {
	rec := m.record()
	all, err := filepath.Glob(filepath.Join(m.s.diskDir(m.id), suspendedPrefix+"*"))
	for _, dir := range all {
		if name := filepath.Base(dir); name != rec.Awoken && (rec.Suspended == nil || name != rec.Suspended.Dir) {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}
	if err != nil {
		m.log.Warn("removing a machine's saved state", "error", err)
	}
}

// sameNetwork is what gives the machine the place in its networks that it has.
func (m *machine) sameNetwork() NetworkSpec {
	spec := m.record().Spec.Network
	j := m.s.Network.Joined(m.id)
	if j == nil {
		return spec
	}
	spec.Joins, spec.Ports = slices.Clone(spec.Joins), slices.Clone(j.Ports)
	for i, e := range j.Endpoints {
		if i >= len(spec.Joins) {
			break
		}
		spec.Joins[i] = Join{Network: e.NetworkID, MAC: slices.Clone(e.MAC), Aliases: e.Aliases}
		for _, a := range e.Addrs {
			spec.Joins[i].Addrs = append(spec.Joins[i].Addrs, a.Addr())
		}
	}
	return spec
}

// linkBootFiles keeps what a VMM reads when it restores the machine. They are not changed where they
// are, only replaced, so links do.
func linkBootFiles(ctx context.Context, dir, kernel, initrd string) error {
	for name, from := range map[string]string{savedKernel: kernel, savedInitrd: initrd} {
		to := filepath.Join(dir, name)
		if os.Link(from, to) == nil {
			continue
		}
		if err := errors.Join(sparse.Clone(ctx, to, from), os.Chmod(to, 0o644)); err != nil {
			return err
		}
	}
	return nil
}

func stampDisk(path string) (diskStamp, error) {
	info, err := os.Stat(path)
	if err != nil {
		return diskStamp{}, err
	}
	return diskStamp{info.Size(), info.Sys().(*syscall.Stat_t).Mtim}, nil
}

func syncPaths(paths []string) error {
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// isSuspended says whether what is in the machine is on disk alone, or about to be.
func (s State) isSuspended() bool { return s == Suspending || s == Suspended }

// wakeFailed begins the reason of a machine that is suspended still.
const wakeFailed = "it could not be brought back: "

func wakeReason(reason string) string { return wakeFailed + strings.TrimPrefix(reason, wakeFailed) }
