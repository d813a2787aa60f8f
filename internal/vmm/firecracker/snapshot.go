// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package firecracker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/firecracker-microvm/firecracker-go-sdk/client/models"
	"github.com/firecracker-microvm/firecracker-go-sdk/client/operations"

	"github.com/micropod/micropod/internal/vmm"
)

// A snapshot is a folder of three files.
const (
	memoryFile   = "memory"        // the guest's memory
	stateFile    = "state"         // Firecracker's device state
	snapshotFile = "snapshot.json" // a manifest, written last

	// Their names in the jail.
	snapshotMemory = "snapshot-memory"
	snapshotState  = "snapshot-state"
)

// snapshotFormat changes when snapshots made before can no longer be restored.
const snapshotFormat = 1

// manifest says what a snapshot can be restored as.
type manifest struct {
	Format     int
	Engine     string
	Version    string // of Firecracker
	VCPUs      int
	Memory     int64
	ReadOnly   []bool // of each drive
	Interfaces int
	Limited    bool `json:",omitempty"` // the saved devices may have limits
}

func (m *machine) manifest() manifest {
	c := m.record.Config
	s := manifest{Format: snapshotFormat, Engine: Name, Version: m.version.String(), VCPUs: c.VCPUs, Memory: c.Memory, Interfaces: len(c.Interfaces), Limited: m.limited.Load()}
	for _, d := range c.Drives {
		s.ReadOnly = append(s.ReadOnly, d.ReadOnly)
	}
	return s
}

// PrepareSnapshot does nothing: Firecracker writes the whole memory itself.
func (m *machine) PrepareSnapshot(context.Context, string) error { return nil }

// Snapshot saves a paused machine, see vmm.Machine. The files are not synced. The guest's connection ends: its side
// of it is reset, and it dials again once it runs.
func (m *machine) Snapshot(ctx context.Context, dir string) error {
	return m.change(ctx, func() (err error) {
		defer func() {
			if err != nil {
				for _, name := range []string{memoryFile, stateFile, snapshotFile} {
					os.Remove(filepath.Join(dir, name))
				}
			}
		}()
		return m.snapshot(ctx, dir)
	})
}

func (m *machine) snapshot(ctx context.Context, dir string) error {
	state, err := m.state(ctx)
	if err != nil {
		return err
	}
	if state != models.InstanceInfoStatePaused {
		return fmt.Errorf("%w: it is %s", vmm.ErrNotPaused, state)
	}
	// The files are readable for all machines restored from them: their folder is what guards them.
	if err := os.Chmod(dir, 0o700); err != nil {
		return err
	}
	if err := m.save(ctx, dir); err != nil {
		return err
	}
	m.dropGuests()
	b, err := json.MarshalIndent(m.manifest(), "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, snapshotFile), b, 0o600)
}

// save has Firecracker write into files that are made here and lent to its uid.
func (m *machine) save(ctx context.Context, dir string) (err error) {
	for name, inside := range map[string]string{memoryFile: snapshotMemory, stateFile: snapshotState} {
		path := filepath.Join(dir, name)
		if err := makeFile(path); err != nil {
			return err
		}
		if err := m.replace(entry{inside, path, false}); err != nil {
			return fmt.Errorf("putting %s into the jail: %w", path, err)
		}
		defer func() {
			err = errors.Join(err, m.remove(inside), os.Chown(path, os.Geteuid(), os.Getegid()))
		}()
	}
	p := operations.NewCreateSnapshotParamsWithContext(ctx).WithTimeout(0)
	p.SetBody(&models.SnapshotCreateParams{SnapshotType: models.SnapshotCreateParamsSnapshotTypeFull, MemFilePath: ptr(snapshotMemory), SnapshotPath: ptr(snapshotState)})
	_, err = m.api.CreateSnapshot(p)
	return explainAPI("PUT /snapshot/create", err)
}

func makeFile(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Chmod(0o644), f.Close())
}
