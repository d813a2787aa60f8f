// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	goruntime "runtime"

	"golang.org/x/sys/unix"
)

// Root opens (O_PATH) the root folder of a running container as its processes see it, mounts included. The
// caller closes it. ErrNotFound: no such container; ErrNotRunning: its first process has ended.
func (r *Runtime) Root(id string) (*os.File, error) {
	c, err := r.container(id)
	if err != nil {
		return nil, err
	}
	pid := c.init.Pid()
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/root", pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	select {
	case <-c.init.Done(): // the number may be another's
		if err == nil {
			unix.Close(fd)
		}
		return nil, ErrNotRunning
	default:
	}
	if err != nil {
		return nil, fmt.Errorf("opening the root of container %s: %w", id, err)
	}
	return os.NewFile(uintptr(fd), "root"), nil
}

// Layers are what a container's root is made of, open (O_PATH). They hold the file systems
// mounted, unseen by any path, until Close.
type Layers struct {
	Image *os.File // read-only
	Upper *os.File // what the container changed, as overlayfs keeps it
	Root  *os.File // both as one; nil unless asked for
}

// Close unmounts what nobody else has open.
func (l *Layers) Close() {
	for _, f := range []*os.File{l.Image, l.Upper, l.Root} {
		if f != nil {
			f.Close()
		}
	}
}

// OpenLayers opens the layers of a root file system of two devices. Root must not be
// asked for while a container runs on it: two overlays must not share an upper folder.
func OpenLayers(from RootFS, root bool) (*Layers, error) {
	image, err := blockDevice(from.ImageDevice)
	if err != nil {
		return nil, fmt.Errorf("image device: %w", err)
	}
	scratch, err := blockDevice(from.ScratchDevice)
	if err != nil {
		return nil, fmt.Errorf("scratch device: %w", err)
	}
	var layers *Layers
	err = apart(func(folder string) (err error) {
		layers, err = mountLayers(image, scratch, folder, root)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("mounting the container's file system: %w", err)
	}
	return layers, nil
}

// apart runs do in a mount namespace of its own, on a thread that ends with it: what
// do mounts in the folder it is given, an empty tmpfs, lives on only where a descriptor holds it, and no
// stem inherits it.
func apart(do func(folder string) error) error {
	done := make(chan error, 1)
	go func() {
		goruntime.LockOSThread() // never unlocked: the thread ends with the goroutine
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
				return err
			}
			if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
				return err
			}
			const folder = "/tmp"
			if err := os.MkdirAll(folder, 0o1777); err != nil {
				return err
			}
			if err := unix.Mount("tmpfs", folder, "tmpfs", 0, "mode=700"); err != nil {
				return err
			}
			// Go parks the process's first thread rather than end it, so the namespace may stay.
			defer unix.Unmount(folder, unix.MNT_DETACH)
			return do(folder)
		}()
	}()
	return <-done
}

func mountLayers(image, scratch uint64, folder string, root bool) (_ *Layers, err error) {
	for _, dir := range []string{stemImage, stemScratch} {
		if err := os.Mkdir(folder+dir, 0o700); err != nil {
			return nil, err
		}
	}
	l := &Layers{}
	defer func() {
		if err != nil {
			l.Close()
		}
	}()
	if root {
		fd, err := overlay(image, scratch, folder, false)
		if err != nil {
			return nil, err
		}
		l.Root = os.NewFile(uintptr(fd), "root") // Fsmount opens with O_PATH
	} else if err := errors.Join(
		mountDevice("erofs", image, []string{"ro"}, folder+stemImage),
		mountDevice("ext4", scratch, []string{"noinit_itable"}, folder+stemScratch),
	); err != nil {
		return nil, err
	}
	if l.Image, err = openPath(folder + stemImage); err != nil {
		return nil, err
	}
	l.Upper, err = openPath(filepath.Join(folder+stemScratch, upperFolder))
	return l, err
}

func openPath(name string) (*os.File, error) {
	fd, err := unix.Open(name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}
