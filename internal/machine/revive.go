// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/micropod/micropod/internal/snapshot"
)

// CreateFrom makes a machine of a snapshot. It is Stopped then, and its first Start goes on
// where the snapshot was taken; later ones boot. Sizes, kernel and engine are the snapshot's; of spec id, names, labels,
// annotations, image and network count. Errors: as of Create, *snapshot.NotFoundError,
// *snapshot.DamageError, *MismatchError.
func (s *Service) CreateFrom(ctx context.Context, ref string, spec Spec) (Info, error) {
	if s.Snapshots == nil {
		return Info{}, &snapshot.NotFoundError{Ref: ref}
	}
	from, release, err := s.Snapshots.Find(ctx, ref)
	if err != nil {
		return Info{}, err
	}
	was, err := s.readSaved(&from)
	if err == nil {
		err = was.Spec.mayBeRestored(from.Note.Here)
	}
	if err != nil {
		release()
		return Info{}, err
	}
	spec.VCPUs, spec.Memory, spec.ScratchBytes = was.Spec.VCPUs, was.Spec.Memory, was.Spec.ScratchBytes
	spec.DiskLimit, spec.Drives = was.Spec.DiskLimit, was.Spec.Drives
	spec.Kernel, spec.Args, spec.Nested, spec.Engine = was.Spec.Kernel, was.Spec.Args, was.Spec.Nested, was.Spec.Engine
	info, err := s.create(ctx, spec, &from)
	if err != nil {
		release()
		return info, err
	}
	if m, err := s.find(info.ID); err == nil {
		m.keep(release)
	}
	return info, nil
}

// mayBeRestored refuses what a snapshot cannot ask of this host. One that was imported, or taken before that was noted,
// names no files of the host: whoever wrote the archive would choose what its guest reads.
func (s Spec) mayBeRestored(here bool) error {
	if err := s.mayBeSaved(); err != nil {
		return err
	}
	if !here && (len(s.Drives) > 0 || s.Kernel != "") {
		return &SpecError{"block devices and kernel", "the snapshot was imported and names files of the host", "make the machine anew with its disks"}
	}
	return nil
}

// keep has the snapshot that the machine is to be restored from stay until it was. nil ends that.
func (m *machine) keep(release func()) {
	m.mu.Lock()
	old := m.kept
	m.kept = release
	if m.removed {
		old, m.kept = release, nil
	}
	m.mu.Unlock()
	if old != nil {
		old()
	}
}

// readSaved reads what a snapshot tells of its machine and says what does not fit.
func (s *Service) readSaved(from *snapshot.Snapshot) (was saved, err error) {
	if err := json.Unmarshal(from.Note.Machine, &was); err != nil {
		return was, &snapshot.DamageError{Ref: from.ID, Reason: "it does not tell of its machine: " + err.Error()}
	}
	if _, err := s.engine(was.Spec.Engine); err != nil {
		return was, &MismatchError{from.ID, "engine", was.Spec.Engine, "not available"}
	}
	if here := s.Network.NICs(); was.NICs != here {
		return was, &MismatchError{from.ID, "number of network devices", fmt.Sprint(was.NICs), fmt.Sprint(here)}
	}
	return was, nil
}

// revive restores the machine from the snapshot that it was made of. There is no other way to start it: what runs in
// it is in the snapshot alone.
func (b *boot) revive(ctx context.Context, id string) (failed string, err error) {
	if failed, err = carryOut(ctx,
		step{"finding kernel and initramfs", b.find},
		step{"finding the snapshot", func(ctx context.Context) error { return b.pickSnapshot(ctx, id) }},
		step{"joining the networks", b.join},
	); err != nil {
		return failed, err
	}
	return b.comeUp(ctx, b.s.RestoreLimit)
}

func (b *boot) pickSnapshot(ctx context.Context, id string) error {
	if b.s.Snapshots == nil {
		return &snapshot.NotFoundError{Ref: id}
	}
	from, release, err := b.s.Snapshots.Find(ctx, id)
	if err != nil {
		return err
	}
	b.mu.Lock()
	b.run.release = release
	b.mu.Unlock()
	was, err := b.s.readSaved(&from)
	if err != nil {
		return err
	}
	if drift := tscDrift(was.TSCKHz, b.files.TSCKHz); drift > maxTSCDrift {
		return &MismatchError{id, "time stamp counter", fmt.Sprint(was.TSCKHz, " kHz"), fmt.Sprint(b.files.TSCKHz, " kHz")}
	}
	b.saved = &from
	b.files.Kernel, b.files.Initrd = from.Path(savedKernel), from.Path(savedInitrd)
	here, err := b.s.fingerprint(ctx, b.spec.Engine, b.config())
	if err != nil {
		return err
	}
	if here != was.Fingerprint {
		return &MismatchError{id, "engine and processor", was.Fingerprint, here}
	}
	return nil
}

// holdSaved marks what a machine that an earlier daemon started was restored from as in use.
func (s *Service) holdSaved(rec record) (release func()) {
	switch {
	case rec.Snapshot != "" && s.Snapshots != nil:
		return s.Snapshots.Hold(rec.Snapshot)
	case rec.Template != "" && s.Templates != nil:
		return s.Templates.Hold(rec.Template)
	default:
		return nil
	}
}
