// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// ConvertReference pulls an image afresh and writes its root file system image
// to out, which it replaces when all is well. It touches no store: cfg.Root is
// ignored, layers lie in a temporary folder (TMPDIR) meanwhile.
func ConvertReference(ctx context.Context, cfg Config, ref, out string, opts PullOptions) (*Image, error) {
	return convertWith(cfg, out, func(s *Store) (*Image, error) { return s.Pull(ctx, ref, opts) })
}

// ConvertFile is ConvertReference from an archive or layout folder, which must
// hold one image.
func ConvertFile(ctx context.Context, cfg Config, path, out string, opts ImportOptions) (*Image, error) {
	return convertWith(cfg, out, func(s *Store) (*Image, error) {
		imgs, err := s.ImportPath(ctx, path, opts)
		return one(imgs, err)
	})
}

// ConvertStream is ConvertFile from a stream.
func ConvertStream(ctx context.Context, cfg Config, r io.Reader, out string, opts ImportOptions) (*Image, error) {
	return convertWith(cfg, out, func(s *Store) (*Image, error) {
		imgs, err := s.Import(ctx, r, opts)
		return one(imgs, err)
	})
}

func one(imgs []*Image, err error) (*Image, error) {
	if err != nil {
		return nil, err
	}
	if len(imgs) != 1 {
		return nil, fmt.Errorf("%w: the archive holds %d images, only one can be converted", ErrAmbiguous, len(imgs))
	}
	return imgs[0], nil
}

// convertWith brings an image into a store of the moment and moves its root
// file system to out. The returned image's RootFS is out.
func convertWith(cfg Config, out string, bring func(*Store) (*Image, error)) (_ *Image, err error) {
	out, err = filepath.Abs(out)
	if err != nil {
		return nil, err
	}
	if st, err := os.Stat(filepath.Dir(out)); err != nil || !st.IsDir() {
		return nil, fmt.Errorf("the folder of %s is not there", out)
	}
	cfg.Root, err = os.MkdirTemp("", "micropod-convert-*")
	if err != nil {
		return nil, fmt.Errorf("creating a temporary folder: %w", err)
	}
	defer os.RemoveAll(cfg.Root)
	cfg.Transient = true
	s, err := Open(cfg)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	img, err := bring(s)
	if err != nil {
		return nil, err
	}
	if err := moveFile(img.RootFS, out); err != nil {
		return nil, fmt.Errorf("writing %s: %w", out, err)
	}
	img.RootFS = out
	return img, nil
}

// moveFile renames, or copies where the temporary folder is on another file
// system; out is replaced as a whole.
func moveFile(from, out string) error {
	if err := os.Chmod(from, 0o644); err != nil {
		return err
	}
	if os.Rename(from, out) == nil {
		return nil
	}
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.CreateTemp(filepath.Dir(out), "."+filepath.Base(out)+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(dst.Name())
	defer dst.Close()
	if _, err := io.Copy(dst, src); err != nil {
		return err
	}
	if err := dst.Chmod(0o644); err != nil {
		return err
	}
	if err := dst.Close(); err != nil {
		return err
	}
	return os.Rename(dst.Name(), out)
}
