// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/micropod/micropod/internal/sealed"
	"github.com/micropod/micropod/internal/sparse"
)

const (
	// maxImport bounds an imported file, in bytes, holes included: the largest disk (machine.Spec).
	maxImport = 16 << 40
	// maxWindow bounds what an archive makes the decompressor keep, in bytes.
	maxWindow = 16 << 20
)

// portable is what an archive says of a snapshot: a manifest without what is this host's.
type portable struct {
	Format int
	Made   time.Time
	Note   Note
	Files  []sealed.File
}

// Export writes a snapshot as a tar of snapshot.json and the files, compressed by zstd. Errors:
// *NotFoundError, *DamageError, w's.
func (c *Catalogue) Export(ctx context.Context, ref string, w io.Writer) error {
	s, release, err := c.Find(ctx, ref)
	if err != nil {
		return err
	}
	defer release()
	c.mu.Lock()
	m := portable{Format: format, Made: s.Made, Note: s.Note, Files: c.all[s.ID].files}
	c.mu.Unlock()
	z, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return err
	}
	archive := tar.NewWriter(z)
	if err := errors.Join(export(ctx, archive, m, &s), archive.Close(), z.Close()); err != nil {
		return fmt.Errorf("exporting snapshot %s: %w", s.ref(), err)
	}
	return nil
}

func export(ctx context.Context, w *tar.Writer, m portable, s *Snapshot) error {
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if err := w.WriteHeader(&tar.Header{Name: manifestFile, Mode: 0o600, Size: int64(len(text)), ModTime: m.Made}); err != nil {
		return err
	}
	if _, err := w.Write(text); err != nil {
		return err
	}
	for _, file := range m.Files {
		if err := exportFile(ctx, w, file, s); err != nil {
			return err
		}
	}
	return nil
}

func exportFile(ctx context.Context, w *tar.Writer, file sealed.File, s *Snapshot) error {
	f, err := os.Open(s.Path(file.Name))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := w.WriteHeader(&tar.Header{Name: filesDir + "/" + file.Name, Mode: 0o600, Size: file.Size, ModTime: s.Made}); err != nil {
		return err
	}
	_, err = io.Copy(w, contextReader{ctx, f})
	return err
}

// contextReader ends a long read with ctx.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (r contextReader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.r.Read(p)
}

// Import reads what Export wrote, and compares its sums. name may be empty. On error nothing is left.
// Errors: *NameError, *DamageError, r's.
func (c *Catalogue) Import(ctx context.Context, r io.Reader, name string) (Snapshot, error) {
	d, err := c.Begin(name, false)
	if err != nil {
		return Snapshot{}, err
	}
	m, err := d.unpack(ctx, r)
	if err != nil {
		d.Discard()
		return Snapshot{}, fmt.Errorf("importing a snapshot: %w", err)
	}
	files, err := sealed.Sums(ctx, d.Path(""))
	if err == nil && !slices.Equal(files, m.Files) {
		err = &DamageError{"to import", "its files are not those of its manifest"}
	}
	if err != nil {
		d.Discard()
		return Snapshot{}, err
	}
	m.Note.Here = false // whatever the archive says
	return d.commit(ctx, m.Note, files, m.Made)
}

// unpack reads the archive into the draft. Bytes, names and sizes may be anybody's.
func (d *Draft) unpack(ctx context.Context, r io.Reader) (m portable, err error) {
	z, err := zstd.NewReader(contextReader{ctx, r}, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return m, err
	}
	defer z.Close()
	archive := tar.NewReader(z)
	if m, err = readPortable(archive); err != nil {
		return m, err
	}
	for _, file := range m.Files {
		h, err := archive.Next()
		if err != nil {
			return m, unexpected(err)
		}
		if h.Name != filesDir+"/"+file.Name || h.Size != file.Size || h.Typeflag != tar.TypeReg {
			return m, &DamageError{"to import", fmt.Sprintf("it holds %q where %q should be", h.Name, file.Name)}
		}
		if err := d.unpackFile(ctx, file.Name, archive); err != nil {
			return m, err
		}
	}
	if _, err := archive.Next(); !errors.Is(err, io.EOF) {
		return m, &DamageError{"to import", "more follows after its files"}
	}
	return m, nil
}

func readPortable(archive *tar.Reader) (m portable, err error) {
	h, err := archive.Next()
	if err != nil {
		return m, &DamageError{"to import", "it is no archive of a snapshot: " + err.Error()}
	}
	if h.Name != manifestFile || h.Size > maxManifest {
		return m, &DamageError{"to import", "it does not begin with a manifest"}
	}
	text, err := io.ReadAll(archive)
	if err != nil {
		return m, unexpected(err)
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return m, &DamageError{"to import", err.Error()}
	}
	if m.Format != format {
		return m, &DamageError{"to import", fmt.Sprintf("its format is %d, this is %d", m.Format, format)}
	}
	for _, file := range m.Files {
		if !filepath.IsLocal(file.Name) || filepath.Clean(file.Name) != file.Name || file.Size < 0 || file.Size > maxImport {
			return m, &DamageError{"to import", fmt.Sprintf("its manifest tells of a file %q of %d bytes", file.Name, file.Size)}
		}
	}
	return m, nil
}

// unexpected tells an archive that ends early.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &DamageError{"to import", "it ends early"}
	}
	return err
}

func (d *Draft) unpackFile(ctx context.Context, name string, r io.Reader) error {
	path := d.Path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	// The catalogue's folder keeps others out; a VMM's own user reads some of the files.
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = sparse.Fill(ctx, f, r, maxImport)
	return unexpected(errors.Join(err, f.Close()))
}
