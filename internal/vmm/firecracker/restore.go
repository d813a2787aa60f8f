// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package firecracker

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/firecracker-microvm/firecracker-go-sdk/client/models"

	"github.com/micropod/micropod/internal/vmm"
)

// maxManifest bounds snapshot.json, in bytes.
const maxManifest = 64 << 10

// Restore starts a machine from a snapshot, see vmm.Engine.
func (e *Engine) Restore(ctx context.Context, c vmm.Config, snapshot string) (vmm.Machine, error) {
	if err := e.check(c); err != nil {
		return nil, err
	}
	saved, err := e.checkSnapshot(c, snapshot)
	if err != nil {
		return nil, fmt.Errorf("snapshot %s: %w", snapshot, err)
	}
	entries := append(driveEntries(c),
		entry{snapshotMemory, filepath.Join(snapshot, memoryFile), true}, entry{snapshotState, filepath.Join(snapshot, stateFile), true})
	m, err := e.launch(ctx, c, entries, func(ctx context.Context, m *machine) error {
		if err := m.load(ctx, saved.Limited || bounds(c)); err != nil {
			return m.startError("restoring", err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return m, nil
}

// loadSnapshot is PUT /snapshot/load with network_overrides, which the SDK's swagger lacks.
type loadSnapshot struct {
	State     string            `json:"snapshot_path"`
	Memory    memoryBackend     `json:"mem_backend"`
	Resume    bool              `json:"resume_vm"`
	Overrides []networkOverride `json:"network_overrides,omitempty"`
}

type memoryBackend struct {
	Path string `json:"backend_path"`
	Type string `json:"backend_type"`
}

type networkOverride struct {
	ID  string `json:"iface_id"`
	TAP string `json:"host_dev_name"`
}

// load has the guest run on. Where limits differ from those saved, they are changed before.
func (m *machine) load(ctx context.Context, limits bool) error {
	request := loadSnapshot{State: snapshotState, Memory: memoryBackend{snapshotMemory, "File"}, Resume: !limits}
	for i, n := range m.record.Config.Interfaces {
		request.Overrides = append(request.Overrides, networkOverride{interfaceID(i), tapName(i, n)})
	}
	m.stage("loading")
	if err := m.api.send(ctx, "PUT", "/snapshot/load", request, nil); err != nil || !limits {
		return err
	}
	if err := m.limit(ctx); err != nil {
		return err
	}
	return m.patchState(ctx, models.VMStateResumed)
}

func readManifest(path string) (s manifest, err error) {
	f, err := os.Open(path)
	if err != nil {
		return s, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxManifest))
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(text, &s); err != nil {
		return s, fmt.Errorf("reading %s: %w", snapshotFile, err)
	}
	return s, nil
}

// checkSnapshot refuses what cannot be restored as c.
func (e *Engine) checkSnapshot(c vmm.Config, dir string) (s manifest, err error) {
	if s, err = readManifest(filepath.Join(dir, snapshotFile)); err != nil {
		return s, err
	}
	var readOnly []bool
	for _, d := range c.Drives {
		readOnly = append(readOnly, d.ReadOnly)
	}
	mismatch := func(field string, has, asked any) error {
		return &vmm.ConfigError{Field: field, Reason: fmt.Sprintf("it has %v, asked for %v", has, asked)}
	}
	switch {
	case s.Engine != Name || s.Format != snapshotFormat:
		return s, fmt.Errorf("it is of engine %s, format %d; this is %s, format %d", s.Engine, s.Format, Name, snapshotFormat)
	case s.Version != e.version.String():
		return s, fmt.Errorf("it was made by Firecracker %s, this is %s", s.Version, e.version)
	case s.VCPUs != c.VCPUs:
		return s, mismatch("VCPUs", s.VCPUs, c.VCPUs)
	case s.Memory != c.Memory:
		return s, mismatch("Memory", s.Memory, c.Memory)
	case !slices.Equal(s.ReadOnly, readOnly):
		return s, mismatch("Drives", s.ReadOnly, readOnly)
	case s.Interfaces != len(c.Interfaces):
		return s, mismatch("Interfaces", s.Interfaces, len(c.Interfaces))
	}
	info, err := os.Stat(filepath.Join(dir, memoryFile))
	if err != nil {
		return s, err
	}
	if info.Size() != s.Memory {
		return s, fmt.Errorf("its memory has %d bytes, want %d", info.Size(), s.Memory)
	}
	return s, nil
}
