// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// output is a file that gets its name only when it is whole. Where the file system is
// able to, it has no name at all before, so that nothing is left after a crash.
type output struct {
	file *os.File
	temp string // its name so far, "" for none
}

func createOutput(path string) (*output, error) {
	dir := filepath.Dir(path)
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o644)
	if err == nil {
		return &output{file: os.NewFile(uintptr(fd), path)}, nil
	}
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EISDIR) {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return createNamed(path)
}

// createNamed is for file systems without nameless files.
func createNamed(path string) (*output, error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.tmp")
	if err != nil {
		return nil, err
	}
	o := &output{file: f, temp: f.Name()}
	if err := f.Chmod(0o644); err != nil {
		o.discard()
		return nil, err
	}
	return o, nil
}

// createSpool makes a nameless file in the folder of path.
func createSpool(path string) (*os.File, error) {
	o, err := createOutput(path)
	if err != nil {
		return nil, err
	}
	return o.unname()
}

// unname gives the file without its name, if it has one.
func (o *output) unname() (*os.File, error) {
	if o.temp == "" {
		return o.file, nil
	}
	if err := os.Remove(o.temp); err != nil {
		o.file.Close()
		return nil, err
	}
	return o.file, nil
}

// commit makes the file, whose bytes are synced already, durable under its name and
// closes it.
func (o *output) commit(path string) error {
	if o.temp == "" {
		if err := o.link(path); err != nil {
			return err
		}
	}
	if err := os.Rename(o.temp, path); err != nil {
		return err
	}
	o.temp = ""
	if err := syncDir(filepath.Dir(path)); err != nil {
		return err
	}
	return o.file.Close()
}

// link names the nameless file beside path: linkat cannot replace, rename can.
func (o *output) link(path string) error {
	temp := filepath.Join(filepath.Dir(path), fmt.Sprintf(".%s.%d-%d.tmp", filepath.Base(path), os.Getpid(), o.file.Fd()))
	if err := os.Remove(temp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	self := fmt.Sprintf("/proc/self/fd/%d", o.file.Fd())
	if err := unix.Linkat(unix.AT_FDCWD, self, unix.AT_FDCWD, temp, unix.AT_SYMLINK_FOLLOW); err != nil {
		return &os.PathError{Op: "linkat", Path: temp, Err: err}
	}
	o.temp = temp
	return nil
}

// discard closes the file and removes what commit did not finish. It may follow commit.
func (o *output) discard() {
	o.file.Close()
	if o.temp != "" {
		os.Remove(o.temp)
	}
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
