// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package template

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/micropod/micropod/internal/sealed"
)

const (
	manifestFile = "template.json"
	verifiedFile = "verified.json"
	snapshotDir  = "snapshot"

	format = 1
	// maxManifest bounds both JSON files, in bytes.
	maxManifest = 1 << 20
)

// manifest is template.json.
type manifest struct {
	Format int
	Key    Key
	Note   Note
	Made   time.Time
	Files  []sealed.File // of the engine, sorted by name
}

// verified is verified.json: the files whose sums were compared, as they were then.
type verified struct {
	BootID string
	Files  []sealed.Stamp
}

func readJSON(path string, into any) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxManifest))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(path), err)
	}
	return nil
}

// writeJSON replaces path as a whole.
func writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// read reads the manifest of the template in dir and looks at its files' names and sizes.
func read(dir string) (manifest, error) {
	var m manifest
	if err := readJSON(filepath.Join(dir, manifestFile), &m); err != nil {
		return m, err
	}
	if m.Format != format {
		return m, fmt.Errorf("its format is %d, this is %d", m.Format, format)
	}
	if id := m.Key.ID(); id != filepath.Base(dir) {
		return m, fmt.Errorf("its key is that of %s", id)
	}
	now, err := sealed.Stamps(filepath.Join(dir, snapshotDir))
	if err != nil {
		return m, err
	}
	same := slices.EqualFunc(m.Files, now, func(f sealed.File, s sealed.Stamp) bool { return f.Name == s.Name && f.Size == s.Size })
	if !same || len(now) == 0 {
		return m, fmt.Errorf("its files are not those that were made")
	}
	return m, nil
}
