// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/micropod/micropod/internal/sparse"
	"github.com/micropod/micropod/internal/vmm"
)

// A snapshot is a folder of three files.
const (
	memoryFile   = "memory"        // the guest's memory, sparse
	stateFile    = "state"         // QEMU's device state
	snapshotFile = "snapshot.json" // a manifest, written last
)

// snapshotFormat changes when snapshots made before can no longer be restored.
const snapshotFormat = 1

// manifest says what a snapshot can be restored as.
type manifest struct {
	Format   int
	Engine   string
	Version  string // of QEMU
	Accel    Accel
	VCPUs    int
	Memory   int64
	Nested   bool
	ReadOnly []bool // of each drive
	// Interfaces counts the network devices.
	Interfaces int
}

func (m *machine) manifest(accel Accel) manifest {
	c := m.record.Config
	s := manifest{Format: snapshotFormat, Engine: Name, Version: m.version(), Accel: accel, VCPUs: c.VCPUs, Memory: c.Memory, Nested: c.Nested, Interfaces: len(c.Interfaces)}
	for _, d := range c.Drives {
		s.ReadOnly = append(s.ReadOnly, d.ReadOnly)
	}
	return s
}

// version is that of the QEMU that runs the machine.
func (m *machine) version() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.qmp == nil {
		return ""
	}
	return m.qmp.version
}

// Snapshot saves a paused machine, see vmm.Machine. The files are not synced.
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
	status, err := m.status(ctx)
	if err != nil {
		return err
	}
	if status != "paused" {
		return fmt.Errorf("%w: it is %s", vmm.ErrNotPaused, status)
	}
	accel, err := m.accel(ctx)
	if err != nil {
		return err
	}
	if err := m.saveState(ctx, filepath.Join(dir, stateFile)); err != nil {
		return fmt.Errorf("saving the state of the devices: %w", err)
	}
	if err := m.saveMemory(ctx, filepath.Join(dir, memoryFile)); err != nil {
		return fmt.Errorf("saving the memory: %w", m.explain(err))
	}
	b, err := json.MarshalIndent(m.manifest(accel), "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, snapshotFile), b, 0o600)
}

// accel asks the running QEMU: an adopted one may have been started otherwise.
func (m *machine) accel(ctx context.Context) (Accel, error) {
	var kvm struct{ Enabled bool }
	if err := m.execute(ctx, "query-kvm", nil, &kvm); err != nil {
		return "", err
	}
	if kvm.Enabled {
		return AccelKVM, nil
	}
	return AccelTCG, nil
}

// saveState writes the state of all devices to path.
//
// xen-save-devices-state is there without Xen as well (migration/savevm.c) and leaves
// the memory out, so it serves booted machines, restored ones and their clones alike; migrate
// writes all memory of a machine that maps it privately. With live=false it leaves
// the drives usable. It takes a file's name, that of an fdset here.
func (m *machine) saveState(ctx context.Context, path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	var answer struct {
		Set int `json:"fdset-id"`
	}
	if err := m.executeFile(ctx, "add-fd", nil, &answer, f); err != nil {
		return err
	}
	err = m.execute(ctx, "xen-save-devices-state", map[string]any{"filename": fmt.Sprintf("/dev/fdset/%d", answer.Set), "live": false}, nil)
	return errors.Join(err, m.execute(ctx, "remove-fd", map[string]int{"fdset-id": answer.Set}, nil), f.Close())
}

// PrepareSnapshot copies the memory that a restored machine maps privately, see vmm.Machine: it is sealed, so
// that only the pages which the machine has of its own are left for the pause.
func (m *machine) PrepareSnapshot(ctx context.Context, dir string) error {
	link, restored, err := m.memory()
	if err != nil || !restored {
		return err
	}
	path := filepath.Join(dir, memoryFile)
	if err := copyMemory(ctx, path, link, m.record.Config.Memory); err != nil {
		os.Remove(path)
		return fmt.Errorf("saving the memory: %w", m.explain(err))
	}
	return nil
}

// saveMemory copies the guest's memory to path, as far as it is not there.
func (m *machine) saveMemory(ctx context.Context, path string) error {
	link, restored, err := m.memory()
	if err != nil {
		return err
	}
	if err := copyMemory(ctx, path, link, m.record.Config.Memory); err != nil && !(restored && errors.Is(err, fs.ErrExist)) {
		return err
	}
	if !restored {
		return nil
	}
	to, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(copyPrivate(ctx, m.process, to, baseName, m.record.Config.Memory), to.Close())
}

// copyMemory makes the file path of size bytes with what link holds.
func copyMemory(ctx context.Context, path, link string, size int64) error {
	to, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer to.Close()
	from, err := os.Open(link)
	if err != nil {
		return err
	}
	defer from.Close()
	if err := to.Truncate(size); err != nil {
		return err
	}
	return errors.Join(sparse.Copy(ctx, to, from, size), to.Close())
}

// memory finds the file that the machine's memory is mapped from, and whether
// the mapping is private because the machine was restored.
func (m *machine) memory() (link string, restored bool, err error) {
	if _, link, err = m.process.Descriptor(baseName, -1); err == nil {
		return link, true, nil
	}
	_, link, err = m.process.Descriptor(memoryName, -1)
	if err != nil {
		return "", false, m.explain(err)
	}
	return link, false, nil
}
