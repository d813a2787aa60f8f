// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/micropod/micropod/internal/fault"
	"github.com/micropod/micropod/internal/snapshot"
	"github.com/micropod/micropod/internal/sparse"
	"github.com/micropod/micropod/internal/version"
	"github.com/micropod/micropod/internal/vmm"
)

// The files of a snapshot that are the machine's.
const (
	savedVM     = "vm" // folder, the engine's
	savedDisk   = diskName
	savedKernel = "vmlinux"
	savedInitrd = "initramfs.cpio"
)

// saved is what a snapshot tells of its machine (snapshot.Note.Machine). Fields are added, never given another meaning.
type saved struct {
	Spec        Spec
	Fingerprint string // of the engine
	TSCKHz      uint64 // of the host
	NICs        int
}

// SaveRequest says how a snapshot is made.
type SaveRequest struct {
	Name      string // may be empty
	Temporary bool   // see snapshot.Snapshot
	// Note is the caller's part; what is of the machine is filled in.
	Note snapshot.Note
	// Beside is called while the machine stands still, for what belongs to the same moment; path tells
	// where its files go. May be nil.
	Beside func(ctx context.Context, path func(name string) string) error
}

// Save makes a snapshot of a running or paused machine: memory, devices and disk of one moment, for
// which it is paused. It is as before when Save returns, and Save ends with ctx. Errors: *NotFoundError, *StateError,
// *StepError, *snapshot.NameError, *vmm.UnsupportedError.
//
// The snapshot is in use until release: a temporary one is gone then, unless machines were made of it.
func (s *Service) Save(ctx context.Context, ref string, r SaveRequest) (made snapshot.Snapshot, release func(), err error) {
	m, err := s.find(ref)
	if err != nil {
		return made, nil, err
	}
	if s.Snapshots == nil {
		return made, nil, errors.New("this daemon keeps no snapshots")
	}
	if made, err = m.saveAs(ctx, r); err != nil {
		return made, nil, err
	}
	return made, s.Snapshots.Hold(made.ID), nil
}

func (m *machine) saveAs(ctx context.Context, r SaveRequest) (snapshot.Snapshot, error) {
	ctx, end, err := m.begin(ctx)
	if err != nil {
		return snapshot.Snapshot{}, err
	}
	defer end()
	if rec := m.record(); rec.State != Running && rec.State != Paused {
		return snapshot.Snapshot{}, &StateError{ID: m.id, Action: "take a snapshot of", State: rec.State, Reason: rec.Reason}
	}
	if err := m.record().Spec.mayBeSaved(); err != nil {
		return snapshot.Snapshot{}, err
	}
	draft, err := m.s.Snapshots.Begin(r.Name, r.Temporary)
	if err != nil {
		return snapshot.Snapshot{}, err
	}
	note, err := m.save(ctx, draft, r)
	if err != nil {
		draft.Discard()
		return snapshot.Snapshot{}, err
	}
	fault.Point("snapshot: saved")
	made, err := draft.Commit(ctx, note)
	if err != nil {
		return snapshot.Snapshot{}, &StepError{ID: m.id, Step: "keeping the snapshot", Err: err}
	}
	fault.Point("snapshot: kept")
	m.log.Info("snapshot made", "snapshot", made.ID, "name", made.Name, "paused", note.Paused, "bytes", made.Bytes)
	m.publish("snapshot", "")
	return made, nil
}

// mayBeSaved refuses a machine of which there cannot be two: a disk of the user's own is not copied.
func (s Spec) mayBeSaved() error {
	for _, d := range s.Drives {
		if !d.ReadOnly {
			return &SpecError{fmt.Sprintf("block device %q", d.ID), "a snapshot's machines would all write to " + d.Path, "make it read-only, or stop the machine and copy the disk"}
		}
	}
	if len(s.NICs) > 0 {
		return &SpecError{"network interfaces", "a snapshot's machines would all be joined to " + s.NICs[0].TAP, "use networks instead"}
	}
	return nil
}

// save fills the draft. What can be done while the machine runs is done before and after the pause.
func (m *machine) save(ctx context.Context, d *snapshot.Draft, r SaveRequest) (note snapshot.Note, err error) {
	note = r.Note
	rec, run := m.record(), m.current()
	if note.Machine, err = m.describe(ctx, rec); err != nil {
		return note, &StepError{ID: m.id, Step: "telling what the snapshot depends on", Err: err}
	}
	if err := keepBootFiles(ctx, d, rec.VMM.Config); err != nil {
		return note, &StepError{ID: m.id, Step: "keeping kernel and initramfs", Err: err}
	}
	if err := os.Mkdir(d.Path(savedVM), 0o700); err != nil {
		return note, &StepError{ID: m.id, Step: "making the snapshot's folder", Err: err}
	}
	if err := run.vm.PrepareSnapshot(ctx, d.Path(savedVM)); err != nil {
		return note, &StepError{ID: m.id, Step: "saving memory that does not change", Err: err}
	}
	fault.Point("snapshot: memory prepared")
	if rec.State == Running {
		if err := m.change(Pausing, "take a snapshot of", nil); err != nil {
			return note, err
		}
	}
	began := time.Now()
	step, err := m.capture(ctx, run, d, r)
	if rec.State == Running {
		undone := m.runOn(run)
		note.Paused = time.Since(began)
		if err == nil && undone != nil {
			step, err = "letting the machine run on", undone
		}
		m.tellTime(ctx, run)
	}
	if err != nil {
		return note, &StepError{ID: m.id, Step: step, Err: err}
	}
	note.Engine, note.Memory, note.Version = rec.Spec.Engine, rec.Spec.Memory, version.Version
	return note, nil
}

// describe says what the machine's snapshot needs of those that restore it.
func (m *machine) describe(ctx context.Context, rec record) (json.RawMessage, error) {
	of, err := m.whatIsSaved(ctx, rec)
	if err != nil {
		return nil, err
	}
	return json.Marshal(of)
}

func (m *machine) whatIsSaved(ctx context.Context, rec record) (saved, error) {
	print, err := m.s.fingerprint(ctx, rec.Spec.Engine, rec.VMM.Config)
	if err != nil {
		return saved{}, err
	}
	files, err := m.s.Boot.Boot(ctx, rec.Spec.Kernel, rec.Spec.Nested)
	if err != nil {
		return saved{}, err
	}
	return saved{Spec: rec.Spec, Fingerprint: print, TSCKHz: files.TSCKHz, NICs: len(rec.VMM.Config.Interfaces)}, nil
}

// fingerprint is what a snapshot of this engine depends on.
func (s *Service) fingerprint(ctx context.Context, name string, c vmm.Config) (string, error) {
	engine, err := s.engine(name)
	if err != nil {
		return "", err
	}
	f, ok := engine.(vmm.Fingerprinter)
	if !ok {
		return "", &vmm.UnsupportedError{Engine: name, Feature: "snapshots", Reason: "it does not tell what they depend on"}
	}
	return f.Fingerprint(ctx, c)
}

// keepBootFiles keeps what a VMM reads when it restores the machine: the host's own may be another's by then.
func keepBootFiles(ctx context.Context, d *snapshot.Draft, c vmm.Config) error {
	err := errors.Join(
		sparse.Clone(ctx, d.Path(savedKernel), c.Kernel),
		sparse.Clone(ctx, d.Path(savedInitrd), c.Initrd),
	)
	if err != nil {
		return err
	}
	// The VMM's own user reads them; they are no secret.
	return errors.Join(os.Chmod(d.Path(savedKernel), 0o644), os.Chmod(d.Path(savedInitrd), 0o644))
}

// capture is what happens during the pause.
func (m *machine) capture(ctx context.Context, r *run, d *snapshot.Draft, req SaveRequest) (step string, err error) {
	if err := r.vm.Pause(ctx); err != nil {
		return "stopping the vCPUs", err
	}
	fault.Point("snapshot: vCPUs stopped")
	if err := r.vm.Snapshot(ctx, d.Path(savedVM)); err != nil {
		return "saving memory and devices", err
	}
	fault.Point("snapshot: memory saved")
	if err := sparse.Clone(ctx, d.Path(savedDisk), m.diskPath()); err != nil {
		return "saving the disk", err
	}
	if req.Beside != nil {
		if err := req.Beside(ctx, d.Path); err != nil {
			return "saving what belongs to the machine", err
		}
	}
	return "", nil
}

// MismatchError: a snapshot cannot be restored here.
type MismatchError struct {
	Snapshot    string
	What        string // such as "engine"
	Saved, Here string
}

func (e *MismatchError) Error() string {
	return fmt.Sprintf("snapshot %s does not fit: its %s is %s, here it is %s", e.Snapshot, e.What, e.Saved, e.Here)
}

// Remediation implements the API's hint.
func (e *MismatchError) Remediation() string {
	return "restore it where it was made, or with the engine and version that made it"
}
