// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/micropod/micropod/internal/fault"
	"github.com/micropod/micropod/internal/snapshot"
	"github.com/micropod/micropod/internal/template"
	"github.com/micropod/micropod/internal/tracing"
	"github.com/micropod/micropod/internal/undo"
	"github.com/micropod/micropod/internal/vmm"
)

// vmmOverhead is what a VMM takes on the host beside the guest's memory, at most:
// the cgroup's limit is the sum. QEMU needs 60-80 MB idle and its translated code
// (TCG) up to some hundred more.
const vmmOverhead = 512 << 20

// cgroupParent holds the machines' own cgroups.
const cgroupParent = "micropod"

// Start boots a machine, or wakes a suspended one, and returns when its agent is identified: it is Running.
// On failure everything is taken back and the machine is in Error, or Stopped when
// ctx ended. Errors: *NotFoundError, *StateError (it runs), *StepError.
func (s *Service) Start(ctx context.Context, ref string) error {
	m, err := s.find(ref)
	if err != nil {
		return err
	}
	ctx, end, err := m.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	if m.isDoomed() {
		return &NotFoundError{ref}
	}
	if m.state().isSuspended() {
		return m.wakeUp(ctx)
	}
	return m.bringUp(ctx)
}

// bringUp starts a machine that stands still. The operation lock is held.
func (m *machine) bringUp(ctx context.Context) error {
	if err := m.change(Starting, "start", nil); err != nil {
		return err
	}
	b := &boot{machine: m, run: newRun(), spec: m.record().Spec}
	m.mu.Lock()
	m.run = b.run
	if m.asleep != nil {
		b.run.ended = m.asleep.ended
	}
	m.mu.Unlock()
	return b.do(ctx)
}

// boot is one start of a machine while it lasts.
type boot struct {
	*machine
	run      *run
	spec     Spec
	files    Boot
	undo     undo.Stack
	engine   vmm.Engine
	template *template.Template // that it is restored from; nil: it boots
	saved    *snapshot.Snapshot // likewise, with containers in it
	asleepIn *suspension        // likewise, the machine's own; nil: it was not suspended
	blank    bool               // a template is to be made of it: no drives, no network, no identity
	joined   *Joined            // to networks; nil: to none
}

// step is one part of a start, which is named in its error.
type step struct {
	name string
	do   func(context.Context) error
}

func (b *boot) do(ctx context.Context) error {
	began := time.Now()
	failed, err := b.way(ctx)
	if err != nil {
		return b.fail(ctx, failed, err)
	}
	b.undo.Release()
	b.keep(nil)
	b.rouse(false)
	b.sweepSuspended()
	b.log.Info("machine runs", "pid", b.info().PID, "template", b.record().Template, "took", time.Since(began).Round(time.Millisecond))
	return nil
}

// way restores the machine from what was saved of it, from a template or, where there is none or it does not do, boots it.
func (b *boot) way(ctx context.Context) (failed string, err error) {
	if b.record().Suspended != nil {
		return b.awaken(ctx)
	}
	if id := b.record().Restore; id != "" {
		return b.revive(ctx, id)
	}
	join := step{"joining the networks", b.join}
	if failed, err = carryOut(ctx, step{"finding kernel and initramfs", b.find}); err != nil {
		return failed, err
	}
	if b.fromPool(ctx) {
		return "", nil
	}
	if failed, err = carryOut(ctx, step{"finding a template", b.pickTemplate}, join); err != nil {
		return failed, err
	}
	if b.template != nil {
		failed, err = b.comeUp(ctx, b.s.RestoreLimit)
		if err == nil || ctx.Err() != nil {
			return failed, err
		}
		if failed, err = b.startOver(ctx, failed, err); err != nil {
			return failed, err
		}
		if failed, err = carryOut(ctx, join); err != nil {
			return failed, err
		}
	}
	return b.comeUp(ctx, b.s.BootLimit)
}

// comeUp starts the VMM and waits for its guest, which must be up within limit.
func (b *boot) comeUp(ctx context.Context, limit time.Duration) (failed string, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("the guest is not up after %s", limit))
	defer cancel()
	return carryOut(ctx,
		step{"preparing the machine's folder", b.prepare},
		step{"starting the VMM", b.launch},
		step{"waiting for the guest's agent", b.meet},
		step{"identifying the machine to its agent", b.identify},
		step{"recording the machine as running", b.done},
	)
}

// carryOut does one step after the other and names the one that failed.
func carryOut(ctx context.Context, steps ...step) (failed string, err error) {
	for _, s := range steps {
		part, end := tracing.Step(ctx, s.name)
		err := s.do(part)
		end(err)
		if err == nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			return s.name, err
		}
		fault.Point("machine start: " + s.name)
	}
	return "", nil
}

func (b *boot) find(ctx context.Context) (err error) {
	if b.engine, err = b.s.engine(b.spec.Engine); err != nil {
		return err
	}
	if b.files, err = b.s.Boot.Boot(ctx, b.spec.Kernel, b.spec.Nested); err != nil || b.blank {
		return err
	}
	if b.spec.Image != "" {
		if _, err := os.Stat(b.spec.Image); err != nil {
			return fmt.Errorf("image of the root file system: %w", err)
		}
	}
	if _, err := os.Stat(b.diskPath()); err != nil {
		return fmt.Errorf("the machine's disk: %w", err)
	}
	return nil
}

// prepare makes the folder for sockets and console anew: a reboot empties RunDir, an
// earlier run left its own.
func (b *boot) prepare(context.Context) error {
	dir := b.s.runDir(b.id)
	return errors.Join(b.dropBody(), os.RemoveAll(dir), os.MkdirAll(dir, 0o700))
}

// launch starts the VMM and its supervisor. The VMM is recorded before anything
// else: from then on a new daemon finds it by its record, before that by its uid.
func (b *boot) launch(ctx context.Context) error {
	vm, err := b.spawn(ctx)
	if err != nil {
		return err
	}
	fault.Point("machine start: VMM runs")
	b.mu.Lock()
	b.run.vm = vm
	b.mu.Unlock()
	b.undo.Add("ending the VMM", func(ctx context.Context) error { return vm.Kill(ctx) })
	b.watch(b.run)
	r := vm.Record()
	return b.note(func(rec *record) {
		rec.VMM, rec.ConsolePath, rec.Template, rec.Snapshot = &r, vm.Console(), b.templateID(), rec.Restore
		if b.asleepIn != nil {
			rec.Awoken = b.asleepIn.Dir
		}
	})
}

func (b *boot) spawn(ctx context.Context) (vmm.Machine, error) {
	switch {
	case b.asleepIn != nil:
		return b.engine.Restore(ctx, b.config(), filepath.Join(b.suspendedDir(b.asleepIn), savedVM))
	case b.saved != nil:
		return b.engine.Restore(ctx, b.config(), b.saved.Path(savedVM))
	case b.template != nil:
		return b.engine.Restore(ctx, b.config(), b.template.Snapshot())
	}
	return b.engine.Start(ctx, b.config())
}

func (b *boot) config() vmm.Config {
	uid := b.record().UID
	c := vmm.Config{
		ID:          b.id,
		Dir:         b.s.runDir(b.id),
		VCPUs:       b.spec.VCPUs,
		Memory:      b.spec.Memory,
		Kernel:      b.files.Kernel,
		Initrd:      b.files.Initrd,
		Args:        b.files.CommandLine(b.spec.VCPUs, b.spec.Args),
		Drives:      b.drives(),
		UID:         uid,
		GID:         uid,
		MemoryLimit: b.spec.Memory + vmmOverhead,

		CgroupParent: cgroupParent,
		Nested:       b.spec.Nested,
	}
	if !b.blank {
		c.Log, c.Metrics = b.spec.Log, b.spec.Metrics
	}
	b.interfaces(&c)
	return c
}

// meet waits for the first session. The VMM's end ends the wait.
func (b *boot) meet(ctx context.Context) error {
	_, err := b.run.link.await(ctx, b.run)
	return err
}

func (b *boot) identify(ctx context.Context) error {
	session, err := b.run.link.await(ctx, b.run)
	if err != nil || b.blank {
		return err
	}
	return b.introduce(ctx, session, b.saved != nil)
}

func (b *boot) done(context.Context) error {
	hello := b.run.link.hello()
	return b.change(Running, "start", func(r *record) {
		if r.Suspended == nil { // else it goes on
			r.StartedAt = time.Now().UTC()
		}
		r.StoppedAt, r.Restore, r.Suspended = time.Time{}, "", nil
		r.AgentVersion, r.KernelVersion = hello.AgentVersion, hello.KernelVersion
	})
}

// fail takes the boot back and settles the machine's state.
func (b *boot) fail(ctx context.Context, step string, err error) error {
	e := &StepError{ID: b.id, Step: step, Err: err, Console: b.lastWords(err)}
	e.Undo = b.undo.Run(ctx)
	state, reason := Error, step+": "+err.Error()
	if e.Undo != nil {
		state, reason = Unknown, reason+"; and "+e.Undo.Error()
	} else if errors.Is(err, context.Canceled) || errors.Is(err, ErrInterrupted) || errors.Is(err, ErrShutdown) {
		state, reason = Stopped, "the start was cancelled"
	}
	if b.record().Suspended != nil && state != Unknown {
		b.wakeFailedWith(reason)
	} else {
		b.over(b.run, state, reason)
	}
	b.log.Warn("machine did not start", "step", step, "error", err)
	return e
}

// lastWords quotes the guest's console, when there was a guest.
func (b *boot) lastWords(err error) string {
	var failed *vmm.StartError
	if errors.As(err, &failed) {
		return failed.Console
	}
	if b.run.vm == nil {
		return ""
	}
	return consoleTail(b.run.vm.Console())
}
