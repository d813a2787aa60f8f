// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/micropod/micropod/internal/diskuse"
	"github.com/micropod/micropod/internal/sealed"
)

// Catalogue is the snapshots in one folder.
type Catalogue struct {
	dir string
	key []byte
	log *slog.Logger

	mu    sync.Mutex
	all   map[string]*entry // by id
	names map[string]bool   // of drafts
}

// entry is one snapshot and who uses it. Catalogue.mu guards what may change.
type entry struct {
	Snapshot
	files []sealed.File
	bad   string // why it is refused; empty: it is not

	check   sync.Mutex     // held while the sums are compared
	checked []sealed.Stamp // as the files were when their sums were right; guarded by check
}

// Open reads the catalogue in dir, which is made where missing. What was half made is removed; what
// was damaged or edited is kept, listed and refused. log may be nil.
func Open(dir string, log *slog.Logger) (*Catalogue, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the folder of snapshots: %w", err)
	}
	key, err := loadKey(filepath.Join(dir, keyFile))
	if err != nil {
		return nil, fmt.Errorf("reading the key that seals snapshots: %w", err)
	}
	c := &Catalogue{dir: dir, key: key, log: log, all: map[string]*entry{}, names: map[string]bool{}}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("reading the folder of snapshots: %w", err)
	}
	for _, e := range entries {
		if e.IsDir() {
			c.load(e.Name())
		}
	}
	return c, nil
}

func (c *Catalogue) load(name string) {
	dir := filepath.Join(c.dir, name)
	if strings.HasPrefix(name, ".") {
		c.log.Warn("removing a snapshot that was not finished", "folder", dir)
		if err := os.RemoveAll(dir); err != nil {
			c.log.Error("removing a snapshot that was not finished", "folder", dir, "error", err)
		}
		return
	}
	m, err := c.readManifest(dir)
	if err != nil {
		c.log.Error("a snapshot cannot be used", "snapshot", name, "error", err)
		m = manifest{ID: name}
	}
	e := c.enter(dir, m)
	if err != nil {
		e.bad = err.Error()
	}
}

func (c *Catalogue) enter(dir string, m manifest) *entry {
	s := Snapshot{ID: m.ID, Name: m.Name, Made: m.Made, Note: m.Note, Temporary: m.Temporary, Bytes: diskuse.Of(dir), dir: dir}
	e := &entry{Snapshot: s, files: m.Files}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all[s.ID] = e
	return e
}

// reserve takes a name for a draft.
func (c *Catalogue) reserve(name string) error {
	if name == "" {
		return nil
	}
	if !nameForm.MatchString(name) {
		return &NameError{name, "it is not made of 1 to 128 letters, digits, _, . and -, a letter or digit first"}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	taken := c.names[name]
	for id, e := range c.all {
		taken = taken || e.Name == name || id == name
	}
	if taken {
		return &NameError{name, "it is in use"}
	}
	c.names[name] = true
	return nil
}

func (c *Catalogue) release(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.names, name)
}

// List tells of all snapshots that are not temporary, the newest first.
func (c *Catalogue) List() []Snapshot {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := []Snapshot{}
	for _, e := range c.all {
		if !e.Temporary {
			list = append(list, e.Snapshot)
		}
	}
	slices.SortFunc(list, func(a, b Snapshot) int { return cmp.Or(b.Made.Compare(a.Made), cmp.Compare(a.ID, b.ID)) })
	return list
}

// Get finds a snapshot by name, id or the id's begin. Its error is a *NotFoundError.
func (c *Catalogue) Get(ref string) (Snapshot, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, err := c.find(ref)
	if err != nil {
		return Snapshot{}, err
	}
	return e.Snapshot, nil
}

// find is Get under c.mu.
func (c *Catalogue) find(ref string) (*entry, error) {
	var begins []*entry
	for id, e := range c.all {
		if ref == id || ref != "" && ref == e.Name {
			return e, nil
		}
		if ref != "" && strings.HasPrefix(id, ref) {
			begins = append(begins, e)
		}
	}
	if len(begins) != 1 {
		return nil, &NotFoundError{ref, len(begins)}
	}
	return begins[0], nil
}

// Find gives a snapshot to restore from, its sums compared. It is in use until release, which may be called more
// than once. Errors: *NotFoundError, *DamageError.
func (c *Catalogue) Find(ctx context.Context, ref string) (s Snapshot, release func(), err error) {
	e, err := c.hold(ref)
	if err != nil {
		return s, nil, err
	}
	if err := e.compare(ctx); err != nil {
		c.letGo(e)
		return s, nil, err
	}
	return e.Snapshot, sync.OnceFunc(func() { c.letGo(e) }), nil
}

// Hold marks a snapshot as in use by a machine that an earlier daemon restored. One that is gone is none of its concern.
func (c *Catalogue) Hold(id string) (release func()) {
	e, err := c.hold(id)
	if err != nil {
		return func() {}
	}
	return sync.OnceFunc(func() { c.letGo(e) })
}

func (c *Catalogue) hold(ref string) (*entry, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, err := c.find(ref)
	if err == nil {
		e.InUse++
	}
	return e, err
}

// letGo ends one use, and a temporary snapshot with the last.
func (c *Catalogue) letGo(e *entry) {
	c.mu.Lock()
	e.InUse--
	last := e.InUse == 0 && e.Temporary && c.all[e.ID] == e
	if last {
		delete(c.all, e.ID)
	}
	c.mu.Unlock()
	if last {
		c.drop(e)
	}
}

func (c *Catalogue) drop(e *entry) {
	if err := c.erase(e); err != nil {
		c.log.Error("removing a temporary snapshot", "snapshot", e.ID, "error", err)
	}
}

// compare makes sure that the files are those that were saved.
func (e *entry) compare(ctx context.Context) error {
	if e.bad != "" {
		return &DamageError{e.ref(), e.bad}
	}
	e.check.Lock()
	defer e.check.Unlock()
	now, err := sealed.Stamps(e.Path(""))
	if err != nil {
		return &DamageError{e.ref(), err.Error()}
	}
	if slices.Equal(now, e.checked) {
		return nil
	}
	files, err := sealed.Sums(ctx, e.Path(""))
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return &DamageError{e.ref(), err.Error()}
	}
	if !slices.Equal(files, e.files) {
		return &DamageError{e.ref(), "its files are not what was saved: they were damaged or edited"}
	}
	e.checked = now
	return nil
}

// ref is what people call it.
func (s *Snapshot) ref() string { return cmp.Or(s.Name, s.ID) }

// Remove removes a snapshot that nobody uses. Errors: *NotFoundError, *InUseError.
func (c *Catalogue) Remove(ref string) (Snapshot, error) {
	c.mu.Lock()
	e, err := c.find(ref)
	if err == nil && e.InUse > 0 {
		err = &InUseError{e.ref(), e.InUse}
	}
	if err != nil {
		c.mu.Unlock()
		return Snapshot{}, err
	}
	delete(c.all, e.ID)
	c.mu.Unlock()
	return e.Snapshot, c.erase(e)
}

// erase renames first, so that a half removed snapshot is none.
func (c *Catalogue) erase(e *entry) error {
	gone := filepath.Join(c.dir, "."+e.ID)
	if err := os.Rename(e.dir, gone); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing snapshot %s: %w", e.ref(), err)
	}
	if err := os.RemoveAll(gone); err != nil {
		return fmt.Errorf("removing snapshot %s: %w", e.ref(), err)
	}
	return nil
}

// Sweep removes temporary snapshots that nobody uses: call it when all that an earlier daemon's machines use is held.
func (c *Catalogue) Sweep() {
	c.mu.Lock()
	var idle []*entry
	for id, e := range c.all {
		if e.Temporary && e.InUse == 0 {
			idle = append(idle, e)
			delete(c.all, id)
		}
	}
	c.mu.Unlock()
	for _, e := range idle {
		c.drop(e)
	}
}

// ImageUsers names the snapshots that are of no use without an image.
func (c *Catalogue) ImageUsers(id string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var users []string
	for _, e := range c.all {
		if e.Note.ImageID == id {
			users = append(users, "snapshot "+e.ref())
		}
	}
	slices.Sort(users)
	return users
}
