// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/micropod/micropod/internal/fault"
	"github.com/micropod/micropod/internal/image"
	"github.com/micropod/micropod/internal/machine"
	"github.com/micropod/micropod/internal/snapshot"
	"github.com/micropod/micropod/internal/undo"
)

// keptLog is the folder of the log among a snapshot's files.
const keptLog = "log"

// Snapshot saves a container that runs or is paused, with all its processes, its disk and its log, of one
// moment. name may be empty. Errors: *NotFoundError, *StateError, *snapshot.NameError, the machine's own.
func (s *Service) Snapshot(ctx context.Context, ref, name string) (snapshot.Snapshot, error) {
	made, release, err := s.snapshot(ctx, ref, machine.SaveRequest{Name: name})
	if err != nil {
		return snapshot.Snapshot{}, err
	}
	release()
	return made, nil
}

func (s *Service) snapshot(ctx context.Context, ref string, r machine.SaveRequest) (made snapshot.Snapshot, release func(), err error) {
	e, err := s.find(ref)
	if err != nil {
		return made, nil, err
	}
	ctx, end, err := e.begin(ctx)
	if err != nil {
		return made, nil, err
	}
	defer end()
	done, err := e.use(ctx)
	if err != nil {
		return made, nil, err
	}
	defer done()
	if i := e.info(); i.State != Running && i.State != Paused {
		return made, nil, &StateError{ID: e.id, Name: e.name(), Action: "take a snapshot of", State: i.State}
	}
	rec := e.record()
	text, err := json.Marshal(rec)
	if err != nil {
		return made, nil, err
	}
	r.Note = snapshot.Note{Container: text, Of: e.name(), Image: rec.Config.Image, ImageID: rec.ImageID}
	r.Beside = func(ctx context.Context, path func(string) string) error {
		if err := os.Mkdir(path(keptLog), 0o700); err != nil {
			return err
		}
		return e.file.Keep(ctx, path(keptLog))
	}
	made, release, err = s.Machines.Save(ctx, rec.MachineID, r)
	if err != nil {
		return made, nil, fmt.Errorf("container %q: %w", e.name(), err)
	}
	e.publish("snapshot", map[string]string{"snapshot": made.ID, "name": made.Name})
	return made, release, nil
}

// Restore makes a container of a snapshot that goes on where that was taken: processes, open files, output and log.
// It has an id, a name, a machine and a disk of its own, and addresses that are nobody else's. name may be empty. On error
// nothing is left. Errors: *snapshot.NotFoundError, *snapshot.DamageError, *machine.MismatchError,
// *NameInUseError, image.ErrNotFound, the machine's own.
func (s *Service) Restore(ctx context.Context, ref, name string) (Info, error) {
	leave, err := s.enter()
	if err != nil {
		return Info{}, err
	}
	defer leave()
	ctx, cancel := s.bind(ctx)
	defer cancel(nil)
	from, release, err := s.findSnapshot(ctx, ref)
	if err != nil {
		return Info{}, err
	}
	defer release()
	r, err := keptRecord(&from)
	if err != nil {
		return Info{}, err
	}
	img, free, err := s.Images.Acquire(r.ImageID)
	if err != nil {
		return Info{}, &MissingImageError{Snapshot: ref, Image: from.Note.Image, Err: err}
	}
	defer free()
	if r.Config.Name, err = s.reserve(r.ID, name); err != nil {
		return Info{}, err
	}
	var u undo.Stack
	u.Add("giving back the name", func(context.Context) error { s.release(r.Config.Name); return nil })
	e, err := s.revive(ctx, r, &from, img, &u)
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return Info{}, withUndo(fmt.Errorf("restoring snapshot %q: %w", ref, err), u.Run(ctx))
	}
	u.Release()
	return e.info(), nil
}

func (s *Service) findSnapshot(ctx context.Context, ref string) (snapshot.Snapshot, func(), error) {
	if s.Snapshots == nil {
		return snapshot.Snapshot{}, nil, &snapshot.NotFoundError{Ref: ref}
	}
	return s.Snapshots.Find(ctx, ref)
}

// keptRecord makes the record of a new container out of a snapshot's.
func keptRecord(from *snapshot.Snapshot) (record, error) {
	var was record
	if len(from.Note.Container) == 0 {
		return was, &InvalidError{Field: "snapshot", Value: from.ID, Reason: "it is of a machine without a container: restore it as a machine"}
	}
	if err := json.Unmarshal(from.Note.Container, &was); err != nil {
		return was, &snapshot.DamageError{Ref: from.ID, Reason: "it does not tell of its container: " + err.Error()}
	}
	r := record{
		ID: newID(), Config: was.Config, ImageID: was.ImageID, Image: was.Image, State: Creating, PID: was.PID,
		GuestID: was.guestID(), Args: was.Args, Created: time.Now().UTC(),
	}
	r.MachineID = r.ID[:machineIDLength]
	r.Config.Network = was.Config.Network.elsewhere()
	return r, nil
}

// revive carries out Restore's steps. Until the container runs its record is in state Creating: a daemon that
// dies in between removes all.
func (s *Service) revive(ctx context.Context, r record, from *snapshot.Snapshot, img *image.Image, u *undo.Stack) (*entry, error) {
	e := s.newEntry(r)
	u.Add("removing the record", func(context.Context) error { return s.records.Delete(r.ID) })
	if err := s.records.Put(r.ID, r); err != nil {
		return nil, err
	}
	fault.Point("restore: recorded")
	u.Add("removing the folder", func(context.Context) error { return os.RemoveAll(s.folder(r.ID)) })
	if err := os.MkdirAll(s.folder(r.ID), 0o700); err != nil {
		return nil, fmt.Errorf("making the container's folder: %w", err)
	}
	if err := e.file.Restore(ctx, from.Path(keptLog)); err != nil {
		return nil, err
	}
	u.Add("removing the machine", func(ctx context.Context) error { return s.deleteMachine(ctx, r.MachineID) })
	if _, err := s.Machines.CreateFrom(ctx, from.ID, r.machineSpec(img.RootFS)); err != nil {
		return nil, err
	}
	fault.Point("restore: machine made")
	if err := s.Machines.Start(ctx, r.MachineID); err != nil {
		return nil, err
	}
	fault.Point("restore: machine runs")
	if err := e.change(Running, "restore", func(rec *record) { rec.Started = time.Now().UTC() }); err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.entries[e.id] = e
	s.mu.Unlock()
	e.publish("create", map[string]string{"image": r.Config.Image, "snapshot": from.ID})
	e.publish("start", nil)
	e.adopt()
	return e, nil
}

// Clone makes containers that go on where a running one is: as a Snapshot of it restored once for each of
// names, which may be empty. paused is how long the container stood still. On error nothing is left. Errors: as of Snapshot and Restore.
func (s *Service) Clone(ctx context.Context, ref string, names []string) (clones []Info, paused time.Duration, err error) {
	made, release, err := s.snapshot(ctx, ref, machine.SaveRequest{Temporary: true})
	if err != nil {
		return nil, 0, err
	}
	defer release()
	var u undo.Stack
	for _, name := range names {
		clone, err := s.Restore(ctx, made.ID, name)
		if err != nil {
			return nil, 0, withUndo(fmt.Errorf("cloning container %q: %w", ref, err), u.Run(ctx))
		}
		u.Add("removing a clone", func(ctx context.Context) error { _, err := s.Remove(ctx, clone.ID, true); return err })
		clones = append(clones, clone)
	}
	u.Release()
	return clones, made.Note.Paused, nil
}

// MissingImageError: a snapshot's image is not here.
type MissingImageError struct {
	Snapshot, Image string
	Err             error
}

func (e *MissingImageError) Error() string {
	return fmt.Sprintf("the image of snapshot %s (%s) is not here: %v", e.Snapshot, e.Image, e.Err)
}

func (e *MissingImageError) Unwrap() error { return e.Err }

// Remediation implements the API's hint.
func (e *MissingImageError) Remediation() string {
	return "get the very image that the container was made of: micropod pull " + e.Image
}
