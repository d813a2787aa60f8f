// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package template

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/micropod/micropod/internal/sealed"
)

// Draft is a template being made.
type Draft struct {
	c     *Catalogue
	key   Key
	dir   string
	began time.Time
}

// Begin makes a folder for a new template of the key. Commit or Discard must follow.
func (c *Catalogue) Begin(k Key) (*Draft, error) {
	dir, err := os.MkdirTemp(c.dir, "."+k.ID()+"-")
	if err != nil {
		return nil, fmt.Errorf("making a template's folder: %w", err)
	}
	d := &Draft{c: c, key: k, dir: dir, began: time.Now()}
	if err := os.Mkdir(d.Snapshot(), 0o700); err != nil {
		d.Discard()
		return nil, fmt.Errorf("making a template's folder: %w", err)
	}
	return d, nil
}

// Snapshot is the empty folder for the engine's files.
func (d *Draft) Snapshot() string { return filepath.Join(d.dir, snapshotDir) }

// Commit sums the files and puts the template in its place, instead of any of the same key. On error the
// draft is gone.
func (d *Draft) Commit(ctx context.Context, n Note) (err error) {
	defer func() {
		if err != nil {
			d.Discard()
			err = fmt.Errorf("keeping a template: %w", err)
		}
	}()
	files, err := sealed.Sums(ctx, d.Snapshot())
	if err != nil {
		return err
	}
	n.Took = time.Since(d.began).Round(time.Millisecond)
	m := manifest{Format: format, Key: d.key, Note: n, Made: time.Now().UTC(), Files: files}
	if err := writeJSON(filepath.Join(d.dir, manifestFile), m); err != nil {
		return err
	}
	id := d.key.ID()
	d.c.mu.Lock()
	old := d.c.all[id]
	delete(d.c.all, id)
	d.c.mu.Unlock()
	if old != nil {
		if err := d.c.erase(old); err != nil {
			return err
		}
	}
	dir := filepath.Join(d.c.dir, id)
	if err := os.Rename(d.dir, dir); err != nil {
		return err
	}
	e := d.c.enter(dir, m, time.Now())
	e.check.Lock()
	defer e.check.Unlock()
	now, err := sealed.Stamps(e.Snapshot())
	if err != nil {
		return err
	}
	return e.markChecked(now, d.c.bootID)
}

// Discard removes what there is of the draft.
func (d *Draft) Discard() {
	if err := os.RemoveAll(d.dir); err != nil {
		d.c.log.Error("removing a template that did not come to be", "error", err)
	}
}
