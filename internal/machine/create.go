// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"time"

	"github.com/micropod/micropod/internal/fault"
	"github.com/micropod/micropod/internal/snapshot"
	"github.com/micropod/micropod/internal/sparse"
	"github.com/micropod/micropod/internal/tracing"
	"github.com/micropod/micropod/internal/undo"
)

// diskName is the machine's own disk, in its folder below DataDir.
const diskName = "scratch.ext4"

// The names differ so that DataDir and RunDir may be one folder.
func (s *Service) diskDir(id string) string { return filepath.Join(s.DataDir, "disks", id) }
func (s *Service) runDir(id string) string  { return filepath.Join(s.RunDir, "machines", id) }

func (s *Service) diskPath(id string) string { return filepath.Join(s.diskDir(id), diskName) }

func (m *machine) diskPath() string { return m.s.diskPath(m.id) }

// blankTime is the time of a disk that nobody has written to since it was made.
var blankTime = time.Unix(1, 0)

// blankDisk says whether nothing was ever written to the machine's disk.
func (m *machine) blankDisk() bool {
	info, err := os.Stat(m.diskPath())
	return err == nil && info.ModTime().Equal(blankTime)
}

// Create makes a machine: record, folder, disk. It is Stopped then. On error
// nothing is left. Errors: *SpecError, *InUseError, *StepError.
func (s *Service) Create(ctx context.Context, spec Spec) (Info, error) {
	return s.create(ctx, spec, nil)
}

// create is Create, of a snapshot if there is one.
func (s *Service) create(ctx context.Context, spec Spec, from *snapshot.Snapshot) (Info, error) {
	spec, err := s.complete(ctx, spec)
	if err != nil {
		return Info{}, err
	}
	m, err := s.reserve(spec, false)
	if err != nil {
		return Info{}, err
	}
	ctx, end, err := m.begin(ctx)
	if err != nil {
		s.forget(m)
		return Info{}, err
	}
	defer end()

	var u undo.Stack
	u.Add("forgetting the machine", func(context.Context) error { s.forget(m); return nil })
	step, err := m.make(ctx, &u, from)
	if err != nil {
		return Info{}, &StepError{ID: m.id, Step: step, Err: err, Undo: u.Run(ctx)}
	}
	u.Release()
	m.log.Info("machine made", "vcpus", spec.VCPUs, "memory", spec.Memory, "engine", spec.Engine)
	return m.info(), nil
}

// make carries out Create's steps. The record goes first: a daemon that dies
// in between finds it in state Creating and removes the rest.
func (m *machine) make(ctx context.Context, u *undo.Stack, from *snapshot.Snapshot) (step string, err error) {
	u.Add("removing the record", func(context.Context) error { return m.s.records.Delete(m.id) })
	if err := m.store(m.record()); err != nil {
		return "storing the record", err
	}
	fault.Point("machine create: recorded")
	m.publish(Creating.String(), "")
	u.Add("removing the machine's folders", func(context.Context) error { return m.removeFolders() })
	if err := os.MkdirAll(m.s.diskDir(m.id), 0o700); err != nil {
		return "making the machine's folder", err
	}
	part, end := tracing.Step(ctx, "making the machine's disk")
	err = m.makeDisk(part, from)
	end(err)
	if err != nil {
		return "making the machine's disk", err
	}
	if err := ctx.Err(); err != nil {
		return "making the machine", context.Cause(ctx)
	}
	fault.Point("machine create: disk made")
	return "recording the machine", m.change(Stopped, "create", func(r *record) {
		if from != nil {
			r.Restore = from.ID
		}
	})
}

func (m *machine) makeDisk(ctx context.Context, from *snapshot.Snapshot) error {
	if from != nil {
		return sparse.Clone(ctx, m.diskPath(), from.Path(savedDisk))
	}
	if err := m.s.MakeDisk(ctx, m.diskPath(), m.record().Spec.ScratchBytes); err != nil {
		return err
	}
	return os.Chtimes(m.diskPath(), blankTime, blankTime)
}

func (m *machine) removeFolders() error {
	var errs []error
	for _, name := range m.names() {
		errs = append(errs, os.RemoveAll(m.s.diskDir(name)), os.RemoveAll(m.s.runDir(name)))
	}
	return errors.Join(errs...)
}

// reserve gives the machine its place in the list, its id, name and uid being
// nobody else's.
func (s *Service) reserve(spec Spec, hidden bool) (*machine, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, taken := s.machines[spec.ID]; taken {
		return nil, &InUseError{"id", spec.ID, spec.ID}
	}
	uids := make(map[int]bool, len(s.machines))
	for id, other := range s.machines {
		if other.record().Body == spec.ID {
			return nil, &InUseError{"id", spec.ID, id} // its folders bear it
		}
		if spec.Name != "" && (other.name == spec.Name || id == spec.Name) {
			return nil, &InUseError{"name", spec.Name, id}
		}
		uids[other.record().UID] = true
	}
	uid, err := s.pickUID(spec.ID, uids)
	if err != nil {
		return nil, err
	}
	m := s.newMachine(record{Spec: spec, State: Creating, UID: uid, MachineID: newMachineID(), CreatedAt: time.Now().UTC()})
	m.hidden = hidden
	s.machines[spec.ID] = m
	return m, nil
}

// pickUID begins where the id's hash says: other daemons on the host with the same range
// then rarely choose alike, and an id just freed is not the next one given.
func (s *Service) pickUID(id string, taken map[int]bool) (int, error) {
	if s.UIDCount == 0 {
		return 0, nil
	}
	begin := int(sumOf(id) % uint32(s.UIDCount))
	for i := range s.UIDCount {
		if uid := s.UIDFirst + (begin+i)%s.UIDCount; !taken[uid] {
			return uid, nil
		}
	}
	return 0, &SpecError{"uid", fmt.Sprintf("all %d user ids for machines are in use", s.UIDCount), "delete machines, or raise uid_count in the configuration"}
}

func sumOf(id string) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(id))
	return h.Sum32()
}

// forget takes the machine out of the list.
func (s *Service) forget(m *machine) {
	m.mu.Lock()
	m.removed = true
	m.mu.Unlock()
	m.keep(nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.machines[m.id] == m {
		delete(s.machines, m.id)
	}
}
