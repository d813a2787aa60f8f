// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package testimages

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

// epoch is the time in all images: equal input gives equal bytes.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// newImage puts layers and configuration together.
func newImage(config v1.Config, layers ...v1.Layer) (v1.Image, error) {
	image, err := mutate.AppendLayers(empty.Image, layers...)
	if err != nil {
		return nil, err
	}
	file, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.Architecture, file.OS, file.Created, file.Config = "amd64", "linux", v1.Time{Time: epoch}, config
	return mutate.ConfigFile(image, file)
}

// withConfig lets change alter the image's configuration.
func withConfig(image v1.Image, change func(*v1.Config)) (v1.Image, error) {
	file, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	change(&file.Config)
	return mutate.Config(image, file.Config)
}

// writeArchive writes the image as a tar of an OCI image layout that carries its name.
func writeArchive(ctx context.Context, path, name string, image v1.Image) error {
	dir, err := os.MkdirTemp(filepath.Dir(path), "layout-")
	if err != nil {
		return fmt.Errorf("making a folder for the image: %w", err)
	}
	defer os.RemoveAll(dir)
	oci, err := layout.Write(dir, empty.Index)
	if err != nil {
		return fmt.Errorf("writing the layout: %w", err)
	}
	err = oci.AppendImage(image, layout.WithAnnotations(map[string]string{
		"org.opencontainers.image.ref.name": name, // podman and skopeo read this one
		"io.containerd.image.name":          name, // containerd this
	}))
	if err != nil {
		return fmt.Errorf("writing the layout: %w", err)
	}
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	defer out.Close()
	if err := tarFolder(ctx, out, dir); err != nil {
		return fmt.Errorf("writing the archive: %w", err)
	}
	return out.Close()
}

// tarFolder writes a folder's files and folders in the order of their names.
func tarFolder(ctx context.Context, out io.Writer, dir string) error {
	w := tar.NewWriter(out)
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if entry.IsDir() {
			return w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755, ModTime: epoch})
		}
		return tarFile(w, name, path)
	})
	if err != nil {
		return err
	}
	return w.Close()
}

func tarFile(w *tar.Writer, name, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := w.WriteHeader(&tar.Header{Name: name, Size: info.Size(), Mode: 0o644, ModTime: epoch}); err != nil {
		return err
	}
	_, err = io.Copy(w, f)
	return err
}
