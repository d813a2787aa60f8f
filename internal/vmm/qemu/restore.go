// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/micropod/micropod/internal/vmm"
	"github.com/micropod/micropod/internal/vmm/process"
)

// maxManifest bounds a snapshot's manifest, in bytes.
const maxManifest = 64 << 10

// Restore starts a machine from a snapshot, see vmm.Engine.
func (e *Engine) Restore(ctx context.Context, c vmm.Config, snapshot string) (vmm.Machine, error) {
	if err := check(c); err != nil {
		return nil, err
	}
	s, err := readManifest(filepath.Join(snapshot, snapshotFile))
	if err != nil {
		return nil, fmt.Errorf("reading snapshot %s: %w", snapshot, err)
	}
	if err := s.fits(c); err != nil {
		return nil, fmt.Errorf("snapshot %s: %w", snapshot, err)
	}
	base, release, err := e.bases.get(ctx, filepath.Join(snapshot, memoryFile), c.Memory)
	if err != nil {
		return nil, fmt.Errorf("loading the memory of snapshot %s: %w", snapshot, err)
	}
	m, err := e.restore(ctx, c, s, base, filepath.Join(snapshot, stateFile))
	if err != nil {
		release()
		return nil, err
	}
	m.setRelease(release)
	return m, nil
}

func (e *Engine) restore(ctx context.Context, c vmm.Config, s manifest, base *os.File, state string) (*machine, error) {
	memory, err := process.Duplicate(base)
	if err != nil {
		return nil, err
	}
	prepare := func(ctx context.Context, m *machine) error {
		if v := m.version(); v != s.Version {
			return fmt.Errorf("the snapshot was made by QEMU %s, this is %s", s.Version, v)
		}
		return m.loadState(ctx, state)
	}
	return e.launch(ctx, &launch{config: c, accel: s.Accel, incoming: true}, memory, prepare)
}

func readManifest(path string) (manifest, error) {
	f, err := os.Open(path)
	if err != nil {
		return manifest{}, err
	}
	defer f.Close()
	var s manifest
	if err := json.NewDecoder(io.LimitReader(f, maxManifest)).Decode(&s); err != nil {
		return manifest{}, fmt.Errorf("%s: %w", snapshotFile, err)
	}
	if s.Format != snapshotFormat || s.Engine != Name {
		return manifest{}, fmt.Errorf("it is of engine %q, format %d: this is %q, format %d", s.Engine, s.Format, Name, snapshotFormat)
	}
	return s, nil
}

// fits says whether c has the shape of the machine that was saved.
func (s manifest) fits(c vmm.Config) error {
	switch {
	case s.VCPUs != c.VCPUs:
		return &vmm.ConfigError{Field: "VCPUs", Reason: fmt.Sprintf("it has %d, asked for %d", s.VCPUs, c.VCPUs)}
	case s.Memory != c.Memory:
		return &vmm.ConfigError{Field: "Memory", Reason: fmt.Sprintf("it has %d bytes, asked for %d", s.Memory, c.Memory)}
	case s.Nested != c.Nested:
		return &vmm.ConfigError{Field: "Nested", Reason: fmt.Sprintf("it has %t, asked for %t", s.Nested, c.Nested)}
	case len(s.ReadOnly) != len(c.Drives):
		return &vmm.ConfigError{Field: "Drives", Reason: fmt.Sprintf("it has %d, asked for %d", len(s.ReadOnly), len(c.Drives))}
	case s.Interfaces != len(c.Interfaces):
		return &vmm.ConfigError{Field: "Interfaces", Reason: fmt.Sprintf("it has %d, asked for %d", s.Interfaces, len(c.Interfaces))}
	}
	for i, d := range c.Drives {
		if s.ReadOnly[i] != d.ReadOnly {
			return &vmm.ConfigError{Field: fmt.Sprintf("Drives[%d]", i), Reason: fmt.Sprintf("it has read-only %t, asked for %t", s.ReadOnly[i], d.ReadOnly)}
		}
	}
	return nil
}

// loadState has a QEMU started to wait for it load the devices' state. Memory is
// there already, mapped from the snapshot.
func (m *machine) loadState(ctx context.Context, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	// The events capability reports the end of a migration (qapi/migration.json).
	capabilities := map[string]any{"capabilities": []any{map[string]any{"capability": "events", "state": true}}}
	if err := m.execute(ctx, "migrate-set-capabilities", capabilities, nil); err != nil {
		return err
	}
	if err := m.executeFile(ctx, "getfd", map[string]string{"fdname": stateFile}, nil, f); err != nil {
		return err
	}
	if err := m.execute(ctx, "migrate-incoming", map[string]string{"uri": "fd:" + stateFile}, nil); err != nil {
		return err
	}
	select {
	case status := <-m.migrated:
		if status != "completed" {
			return errors.New("QEMU refuses the state of the devices")
		}
		return nil
	case <-m.lost(): // it ends when the state does not fit
		return errors.New("QEMU refuses the state of the devices")
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// setRelease replaces what gives back the snapshot's memory and returns what did so before.
func (m *machine) setRelease(release func()) (old func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	old, m.release = m.release, release
	return old
}
