// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/micropod/micropod/internal/sealed"
)

// Draft is a snapshot being made. Its name is taken.
type Draft struct {
	c         *Catalogue
	id, name  string
	temporary bool
	dir       string
}

// Begin makes a folder for a new snapshot. Commit or Discard must follow. name may be empty.
// Errors: *NameError.
func (c *Catalogue) Begin(name string, temporary bool) (*Draft, error) {
	d := &Draft{c: c, id: newID(), name: name, temporary: temporary}
	if err := c.reserve(name); err != nil {
		return nil, err
	}
	d.dir = filepath.Join(c.dir, "."+d.id)
	if err := os.MkdirAll(d.Path(""), 0o700); err != nil {
		d.Discard()
		return nil, fmt.Errorf("making a snapshot's folder: %w", err)
	}
	return d, nil
}

func newID() string {
	b := make([]byte, 8)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return hex.EncodeToString(b)
}

// ID is what the snapshot will have.
func (d *Draft) ID() string { return d.id }

// Path is where a file goes that belongs to the snapshot.
func (d *Draft) Path(name string) string { return filepath.Join(d.dir, filesDir, name) }

// Commit sums, seals and syncs the files and puts the snapshot in its place. On error the draft is gone.
func (d *Draft) Commit(ctx context.Context, n Note) (s Snapshot, err error) {
	files, err := sealed.Sums(ctx, d.Path(""))
	if err != nil {
		d.Discard()
		return s, fmt.Errorf("summing a snapshot's files: %w", err)
	}
	n.Here = true
	return d.commit(ctx, n, files, time.Now().UTC())
}

func (d *Draft) commit(ctx context.Context, n Note, files []sealed.File, made time.Time) (s Snapshot, err error) {
	defer func() {
		if err != nil {
			d.Discard()
			err = fmt.Errorf("keeping a snapshot: %w", err)
		}
	}()
	if err := d.sync(ctx, files); err != nil {
		return s, err
	}
	m := manifest{Format: format, ID: d.id, Name: d.name, Made: made, Temporary: d.temporary, Note: n, Files: files}
	if err := d.c.writeManifest(d.dir, m); err != nil {
		return s, err
	}
	dir := filepath.Join(d.c.dir, d.id)
	if err := os.Rename(d.dir, dir); err != nil {
		return s, err
	}
	d.dir = dir // Discard removes this one now
	if err := syncDir(d.c.dir); err != nil {
		return s, err
	}
	checked, err := sealed.Stamps(d.Path(""))
	if err != nil {
		return s, err
	}
	e := d.c.enter(dir, m)
	e.checked = checked
	d.c.release(d.name)
	return e.Snapshot, nil
}

// sync makes the files durable. A temporary snapshot does not outlive the machines made of it, so a power
// failure takes nothing that matters.
func (d *Draft) sync(ctx context.Context, files []sealed.File) error {
	if d.temporary {
		return nil
	}
	folders := map[string]bool{}
	for _, file := range files {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		path := d.Path(file.Name)
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return err
		}
		folders[filepath.Dir(path)] = true
	}
	for folder := range folders {
		if err := syncDir(folder); err != nil {
			return err
		}
	}
	return syncDir(d.dir)
}

// Discard removes what there is of the draft and gives back its name. It may be called after a Commit that failed.
func (d *Draft) Discard() {
	d.c.release(d.name)
	if err := os.RemoveAll(d.dir); err != nil {
		d.c.log.Error("removing a snapshot that did not come to be", "error", err)
	}
}
