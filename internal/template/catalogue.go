// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package template

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
	"syscall"
	"time"

	"github.com/micropod/micropod/internal/sealed"
)

// Catalogue is the templates in one folder.
type Catalogue struct {
	dir    string
	bootID string
	log    *slog.Logger

	mu  sync.Mutex
	all map[string]*entry // by id
}

// entry is one template and who uses it. Catalogue.mu guards what may change.
type entry struct {
	Template
	manifest manifest

	check   sync.Mutex     // held while the sums are compared
	checked []sealed.Stamp // as the files were when their sums were right; guarded by check
}

// NotFoundError: no template has this id, or several begin so.
type NotFoundError struct {
	Ref   string
	Count int // of those that begin so
}

func (e *NotFoundError) Error() string {
	if e.Count > 1 {
		return fmt.Sprintf("%q begins the id of %d templates", e.Ref, e.Count)
	}
	return fmt.Sprintf("no template %q", e.Ref)
}

// Remediation implements the API's hint.
func (e *NotFoundError) Remediation() string { return "list templates with: micropod template ls" }

// InUseError: machines run from the template.
type InUseError struct {
	ID       string
	Machines int
}

func (e *InUseError) Error() string {
	return fmt.Sprintf("template %s is in use by %d machines", e.ID, e.Machines)
}

// Remediation implements the API's hint.
func (e *InUseError) Remediation() string { return "remove it when those machines have ended" }

// Open reads the catalogue in dir, which is made where missing. What was half made and what
// cannot be read is removed. log may be nil.
func Open(dir string, log *slog.Logger) (*Catalogue, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the folder of templates: %w", err)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, err
	}
	c := &Catalogue{dir: dir, bootID: strings.TrimSpace(string(boot)), log: log, all: map[string]*entry{}}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("reading the folder of templates: %w", err)
	}
	for _, e := range entries {
		if err := c.load(e.Name()); err != nil {
			log.Warn("removing a template that is not whole", "template", e.Name(), "error", err)
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				log.Error("removing a template that is not whole", "template", e.Name(), "error", err)
			}
		}
	}
	return c, nil
}

func (c *Catalogue) load(name string) error {
	dir := filepath.Join(c.dir, name)
	if strings.HasPrefix(name, ".") {
		return errors.New("it was not finished")
	}
	m, err := read(dir)
	if err != nil {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	c.enter(dir, m, info.ModTime())
	return nil
}

func (c *Catalogue) enter(dir string, m manifest, used time.Time) *entry {
	t := Template{ID: m.Key.ID(), Key: m.Key, Note: m.Note, Made: m.Made, Used: used, Bytes: onDisk(dir), dir: dir}
	e := &entry{Template: t, manifest: m}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all[t.ID] = e
	return e
}

// onDisk is what the files below dir take.
func onDisk(dir string) (n int64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if info, err := d.Info(); err == nil {
			n += info.Sys().(*syscall.Stat_t).Blocks * 512
		}
		return nil
	})
	return n
}

// List tells of all templates, the last used first.
func (c *Catalogue) List() []Template {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := make([]Template, 0, len(c.all))
	for _, e := range c.all {
		list = append(list, e.Template)
	}
	slices.SortFunc(list, func(a, b Template) int { return cmp.Or(b.Used.Compare(a.Used), cmp.Compare(a.ID, b.ID)) })
	return list
}

// Get finds a template by its id or the id's begin. Its error is a *NotFoundError.
func (c *Catalogue) Get(ref string) (Template, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var found []*entry
	for id, e := range c.all {
		if ref != "" && strings.HasPrefix(id, ref) {
			found = append(found, e)
		}
	}
	if len(found) != 1 {
		return Template{}, &NotFoundError{ref, len(found)}
	}
	return found[0].Template, nil
}

// Has says whether there is a template of this key, whole or not.
func (c *Catalogue) Has(k Key) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.all[k.ID()] != nil
}

// Find gives the template of the key, its sums compared; nil when there is none. One that is
// damaged is dropped. release ends the use; it may be called more than once.
func (c *Catalogue) Find(ctx context.Context, k Key) (t *Template, release func(), err error) {
	e := c.hold(k.ID())
	if e == nil {
		return nil, nil, nil
	}
	release = sync.OnceFunc(func() { c.letGo(e) })
	if err := c.compare(ctx, e); err != nil {
		release()
		if ctx.Err() != nil {
			return nil, nil, context.Cause(ctx)
		}
		c.Drop(e.ID, err)
		return nil, nil, nil
	}
	now := time.Now()
	_ = os.Chtimes(e.dir, now, now) // only the order of leaving hangs on it
	c.mu.Lock()
	defer c.mu.Unlock()
	e.Used = now
	found := e.Template
	return &found, release, nil
}

// Hold marks the template as in use by a machine of an earlier daemon. A template that is gone
// is none of its concern.
func (c *Catalogue) Hold(id string) (release func()) {
	e := c.hold(id)
	if e == nil {
		return func() {}
	}
	return sync.OnceFunc(func() { c.letGo(e) })
}

func (c *Catalogue) hold(id string) *entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.all[id]
	if e != nil {
		e.InUse++
	}
	return e
}

func (c *Catalogue) letGo(e *entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e.InUse--
}

// compare makes sure that the files are those that were made.
func (c *Catalogue) compare(ctx context.Context, e *entry) error {
	e.check.Lock()
	defer e.check.Unlock()
	now, err := sealed.Stamps(e.Snapshot())
	if err != nil {
		return err
	}
	if e.checked == nil {
		var v verified
		if err := readJSON(filepath.Join(e.dir, verifiedFile), &v); err == nil && v.BootID == c.bootID {
			e.checked = v.Files
		}
	}
	if len(now) > 0 && slices.Equal(now, e.checked) {
		return nil
	}
	files, err := sealed.Sums(ctx, e.Snapshot())
	if err != nil {
		return err
	}
	if !slices.Equal(files, e.manifest.Files) {
		return errors.New("its sums are not those of its making")
	}
	return e.markChecked(now, c.bootID)
}

// markChecked remembers, beyond the daemon's end too, how the files were.
func (e *entry) markChecked(now []sealed.Stamp, bootID string) error {
	e.checked = now
	return writeJSON(filepath.Join(e.dir, verifiedFile), verified{bootID, now})
}

// Drop removes a template that is of no use, whoever uses it: machines hold what they
// need of its files open.
func (c *Catalogue) Drop(id string, why error) {
	c.log.Warn("dropping a template", "template", id, "why", why)
	c.mu.Lock()
	e := c.all[id]
	delete(c.all, id)
	c.mu.Unlock()
	if e == nil {
		return
	}
	if err := c.erase(e); err != nil {
		c.log.Error("dropping a template", "template", id, "error", err)
	}
}

// erase renames first, so that a half removed template is none.
func (c *Catalogue) erase(e *entry) error {
	gone := filepath.Join(c.dir, "."+e.ID+"-gone")
	if err := os.Rename(e.dir, gone); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.RemoveAll(gone)
}

// Remove removes a template that nobody uses. Errors: *NotFoundError, *InUseError.
func (c *Catalogue) Remove(ref string) (Template, error) {
	t, err := c.Get(ref)
	if err != nil {
		return Template{}, err
	}
	c.mu.Lock()
	e := c.all[t.ID]
	if e == nil || e.InUse > 0 {
		c.mu.Unlock()
		if e == nil {
			return Template{}, &NotFoundError{Ref: ref}
		}
		return Template{}, &InUseError{t.ID, e.InUse}
	}
	delete(c.all, t.ID)
	c.mu.Unlock()
	return t, c.erase(e)
}
