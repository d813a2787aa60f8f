// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/micropod/micropod/internal/sealed"
)

const (
	manifestFile = "snapshot.json"
	filesDir     = "files"
	keyFile      = "key"
	keyBytes     = 32

	format = 1
	// maxManifest bounds a manifest, in bytes.
	maxManifest = 4 << 20
)

// manifest says what a snapshot is.
type manifest struct {
	Format    int
	ID        string
	Name      string
	Made      time.Time
	Temporary bool
	Note      Note
	Files     []sealed.File // sorted by name
}

// envelope is snapshot.json.
type envelope struct {
	Manifest json.RawMessage
	Seal     []byte // of Manifest's bytes, compacted
}

// loadKey reads the host's key, made where missing. Without it what was sealed by it is refused.
func loadKey(path string) ([]byte, error) {
	key, err := os.ReadFile(path)
	if err == nil && len(key) != keyBytes {
		err = fmt.Errorf("%s has %d bytes, not %d", path, len(key), keyBytes)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	key = make([]byte, keyBytes)
	_, _ = rand.Read(key) // never fails (crypto/rand)
	if err := writeSynced(path, key); err != nil {
		return nil, err
	}
	return key, nil
}

func (c *Catalogue) seal(text []byte) []byte {
	h := hmac.New(sha256.New, c.key)
	h.Write(text)
	return h.Sum(nil)
}

// writeManifest seals m into dir.
func (c *Catalogue) writeManifest(dir string, m manifest) error {
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	b, err := json.Marshal(envelope{text, c.seal(text)})
	if err != nil {
		return err
	}
	return writeSynced(filepath.Join(dir, manifestFile), b)
}

// readManifest reads that of the snapshot in dir, checks its seal, and looks at its files' names and sizes.
func (c *Catalogue) readManifest(dir string) (m manifest, err error) {
	f, err := os.Open(filepath.Join(dir, manifestFile))
	if err != nil {
		return m, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxManifest))
	if err != nil {
		return m, err
	}
	var e envelope
	if err := json.Unmarshal(b, &e); err != nil {
		return m, fmt.Errorf("%s: %w", manifestFile, err)
	}
	var text bytes.Buffer
	if err := json.Compact(&text, e.Manifest); err != nil {
		return m, err
	}
	if !hmac.Equal(e.Seal, c.seal(text.Bytes())) {
		return m, errors.New("its seal is not this host's: somebody edited it, or the key is another's")
	}
	if err := json.Unmarshal(e.Manifest, &m); err != nil {
		return m, fmt.Errorf("%s: %w", manifestFile, err)
	}
	return m, m.fits(dir)
}

func (m *manifest) fits(dir string) error {
	if m.Format != format {
		return fmt.Errorf("its format is %d, this is %d", m.Format, format)
	}
	if m.ID != filepath.Base(dir) {
		return fmt.Errorf("its manifest is that of %q", m.ID)
	}
	now, err := sealed.Stamps(filepath.Join(dir, filesDir))
	if err != nil {
		return err
	}
	if !slices.EqualFunc(m.Files, now, func(f sealed.File, s sealed.Stamp) bool { return f.Name == s.Name && f.Size == s.Size }) {
		return errors.New("its files are not those that were saved")
	}
	return nil
}

// writeSynced makes a file as a whole: after a power failure it is there or not.
func writeSynced(path string, b []byte) error {
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		os.Remove(path + ".new")
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes a folder's names durable.
func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
