// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// fromPool has a machine of the pool become this one, and says whether it did. The VMM stays what and where it is:
// its folder, cgroup and user id go on under the name of the pool's machine, which the record keeps as its Body.
// On failure nothing is left of the pool's machine, and this one can be restored or booted.
func (b *boot) fromPool(ctx context.Context) bool {
	if b.hidden || b.blank || !b.blankDisk() {
		return false
	}
	if err := b.dropBody(); err != nil { // of a start that a kill of the daemon ended
		b.log.Warn("removing what an earlier start left", "error", err)
		return false
	}
	donor := b.s.take(b.spec)
	if donor == nil {
		return false
	}
	ctx, cancel := context.WithTimeoutCause(ctx, b.s.RestoreLimit, fmt.Errorf("the guest does not answer within %s", b.s.RestoreLimit))
	defer cancel()
	failed, err := carryOut(ctx,
		step{"taking a machine of the pool", func(ctx context.Context) error { return b.become(ctx, donor) }},
		step{"giving it its disk", b.takeDisk},
		step{"giving it its place in the networks", func(ctx context.Context) error { return b.takePlace(ctx, donor.id) }},
		step{"identifying the machine to its agent", b.identify},
		step{"recording the machine as running", b.done},
	)
	if err == nil {
		return true
	}
	b.log.Warn("the machine of the pool did not do", "step", failed, "error", err)
	b.giveUpBody(ctx)
	return false
}

// become takes over the donor's run, and records it before anything else.
func (b *boot) become(ctx context.Context, donor *machine) error {
	_, end, err := donor.begin(ctx)
	if err != nil {
		b.s.detachDiscard(donor)
		return err
	}
	defer end()
	old := donor.current()
	if old == nil || donor.state() != Running {
		return errors.Join(ErrEnded, donor.discard())
	}
	had := donor.record()
	b.undo.Add("freeing the place of the pool's machine", func(ctx context.Context) error { return b.s.Network.Detach(ctx, donor.id) })
	b.undo.Add("ending the VMM", func(ctx context.Context) error { return old.vm.Kill(ctx) })
	b.run = donor.handOver(old)
	b.mu.Lock()
	b.machine.run = b.run
	b.mu.Unlock()
	b.watchOver(b.run)
	err = b.note(func(r *record) {
		r.Body, r.UID = donor.id, had.UID
		r.VMM, r.ConsolePath, r.Template = had.VMM, had.ConsolePath, had.Template
	})
	b.s.forget(donor)
	return err
}

// handOver ends the machine's hold of its run, which goes on as another machine's. The operation lock is held.
func (m *machine) handOver(r *run) *run {
	next := &run{vm: r.vm, link: r.link, gone: r.gone, closeGone: r.closeGone, ended: make(chan struct{})}
	m.mu.Lock()
	next.release, r.release = r.release, nil
	m.run = nil
	m.mu.Unlock()
	r.leave()
	return next
}

// takeDisk gives the machine the disk of the pool's, which the guest has mounted, in place of its own, on which nothing
// is yet. The container which ran ahead has left nothing on it.
func (b *boot) takeDisk(context.Context) error {
	body := b.record().Body
	if err := os.Rename(b.s.diskPath(body), b.diskPath()); err != nil {
		return err
	}
	return os.RemoveAll(b.s.diskDir(body))
}

// takePlace has the machine go on in the donor's networks.
func (b *boot) takePlace(ctx context.Context, donor string) (err error) {
	if len(b.spec.Network.Joins) == 0 {
		return nil
	}
	b.undo.Add("leaving the networks", func(ctx context.Context) error {
		return b.s.Network.Detach(ctx, b.id)
	})
	b.joined, err = b.s.Network.HandOver(ctx, donor, b.attachRequest())
	return err
}

// giveUpBody takes back what fromPool did.
func (b *boot) giveUpBody(ctx context.Context) {
	err := b.undo.Run(ctx)
	if b.run.vm != nil {
		err = errors.Join(err, b.run.vm.Close())
		old := b.run
		b.run = newRun()
		b.mu.Lock()
		b.machine.run = b.run
		b.mu.Unlock()
		b.finish(old)
	}
	err = errors.Join(err, b.dropBody(), b.note(func(r *record) { r.VMM, r.Template = nil, "" }))
	if err != nil {
		b.log.Error("taking back a machine of the pool", "error", err)
	}
}

// dropBody removes what was named for the pool's machine that this one once was. Its VMM is gone.
func (m *machine) dropBody() error {
	body := m.record().Body
	if body == "" {
		return nil
	}
	return errors.Join(os.RemoveAll(m.s.runDir(body)), os.RemoveAll(m.s.diskDir(body)), m.note(func(r *record) { r.Body = "" }))
}

// names are those under which folders of the machine may lie.
func (m *machine) names() []string {
	if body := m.record().Body; body != "" {
		return []string{m.id, body}
	}
	return []string{m.id}
}
