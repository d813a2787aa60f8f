// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/agent/inroot"
)

// setup builds what a container sees in its root file system.
type setup struct {
	*stem
	plan *containerPlan
	fds  []int
	root inroot.Root

	fresh bool // a mount that was not staged has been made
}

// build mounts, makes devices and files and writes sysctls; the root stays writable.
func (c *setup) build() error {
	if !c.plan.Root.propagatesLate() {
		if err := c.propagate(); err != nil {
			return err
		}
	}
	for i := range c.plan.Mounts {
		m := &c.plan.Mounts[i]
		if err := c.mount(m); err != nil {
			return fmt.Errorf("mounting %s on %s: %w", m.name(), m.Dest, err)
		}
	}
	if err := c.devices(); err != nil {
		return err
	}
	for i := range c.plan.Files {
		f := &c.plan.Files[i]
		if err := c.file(i, f); err != nil {
			return fmt.Errorf("making file %s: %w", f.Path, err)
		}
	}
	for _, s := range c.plan.Sysctls {
		if err := c.sysctl(s); err != nil {
			return fmt.Errorf("setting sysctl %s to %q: %w", s.Key, s.Value, err)
		}
	}
	return nil
}

// propagate sets the root's propagation.
func (c *setup) propagate() error {
	if c.plan.Root.Propagation == 0 {
		return nil
	}
	if err := setPropagation(c.root.FD, c.plan.Root.Propagation); err != nil {
		return fmt.Errorf("setting the root's propagation: %w", err)
	}
	return nil
}

// propagatesLate: nothing below an unbindable root can be bound, and a shared one cannot be
// pivoted to. The others come first, for mounts may ask for a propagation of their own.
func (p *rootPlan) propagatesLate() bool {
	return p.Propagation&(unix.MS_SHARED|unix.MS_UNBINDABLE) != 0
}

func (m *mountPlan) name() string {
	if m.FD >= 0 {
		return m.Source
	}
	return m.Type
}

func (c *setup) mount(m *mountPlan) error {
	target, err := c.target(m)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	if s := c.stagedFor(m); s != nil {
		s.used = true
		return attach(s.fd, target)
	}
	c.fresh = true
	mount, err := c.detached(m)
	if err != nil {
		return err
	}
	defer unix.Close(mount)
	if err := attach(mount, target); err != nil {
		return err
	}
	for _, flag := range m.Propagation {
		if err := setPropagation(mount, flag); err != nil {
			return fmt.Errorf("setting its propagation: %w", err)
		}
	}
	return nil
}

// stagedFor finds the staged mount that serves m. What the spec lists first must be mounted
// first, and a kernel from 6.8 on tells mounts in the order of their making: so none follows a fresh one.
func (c *setup) stagedFor(m *mountPlan) *stagedMount {
	for i := range c.staged {
		if s := &c.staged[i]; !c.fresh && s.serves(m, c.plan) {
			return s
		}
	}
	return nil
}

// target opens what m is mounted on, making it where missing.
func (c *setup) target(m *mountPlan) (int, error) {
	if m.File {
		return c.root.File(m.Dest)
	}
	fd, err := c.root.Folder(m.Dest)
	if err == nil && (m.Type == "proc" || m.Type == "sysfs") {
		err = c.refuseLinks(m.Dest)
	}
	return fd, err
}

// refuseLinks fails if a symbolic link is in the path: a proc or sysfs put elsewhere by
// the image would let its masks be missed.
func (c *setup) refuseLinks(path string) error {
	fd, err := unix.Openat2(c.root.FD, path, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS,
	})
	if errors.Is(err, unix.ELOOP) {
		return invalid("the image has a symbolic link in the path")
	}
	unix.Close(fd)
	return err
}

// detached makes the mount that m asks for, attached nowhere.
func (c *setup) detached(m *mountPlan) (int, error) {
	if m.FD < 0 {
		return newMount(m.Type, m.Source, m.Data, m.Set)
	}
	mount := c.fds[m.FD]
	if err := setAttr(mount, m.RecSet, m.RecClear, true); err != nil {
		return -1, err
	}
	return mount, setAttr(mount, m.Set, m.Clear, false)
}

// file puts f on the stem's tmpfs and binds it over its path.
func (c *setup) file(i int, f *File) error {
	name := stemFiles + "/" + strconv.Itoa(i)
	fd, err := unix.Open(name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, f.Mode&0o7777)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for rest := f.Content; len(rest) > 0; {
		n, err := unix.Write(fd, rest)
		if err != nil {
			return err
		}
		rest = rest[n:]
	}
	target, err := c.root.File(f.Path)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	mount, err := cloneMount(fd, false)
	if err != nil {
		return err
	}
	defer unix.Close(mount)
	return attach(mount, target)
}

// sysctl writes through a proc of our own: the container's may be read-only. What is
// in a namespace is written in that of the calling thread.
func (c *setup) sysctl(s sysctlPlan) error {
	return writeAt(c.procfs, "sys/"+strings.ReplaceAll(s.Key, ".", "/"), s.Value)
}

// finish covers what the container must not see or change, and makes its root the only one.
func (c *setup) finish() error {
	if err := c.cover(); err != nil {
		return err
	}
	if err := pivot(c.root.FD); err != nil {
		return fmt.Errorf("changing to the container's root: %w", err)
	}
	if c.plan.Root.propagatesLate() {
		if err := c.propagate(); err != nil {
			return err
		}
	}
	if c.plan.Root.Readonly {
		if err := setAttr(c.root.FD, unix.MOUNT_ATTR_RDONLY, 0, false); err != nil {
			return fmt.Errorf("making the root read-only: %w", err)
		}
	}
	return nil
}

// cover masks paths, except those that came masked with a staged mount.
func (c *setup) cover() error {
	var masked, readonly []string
	for i := range c.staged {
		if s := &c.staged[i]; s.used {
			masked = append(masked, s.masked...)
			readonly = append(readonly, s.readonly...)
		}
	}
	for _, path := range without(c.plan.Masked, masked) {
		if _, err := mask(c.root, path, c.null); err != nil {
			return fmt.Errorf("masking %s: %w", path, err)
		}
	}
	for _, path := range without(c.plan.Readonly, readonly) {
		if _, err := makeReadonly(c.root, path); err != nil {
			return fmt.Errorf("making %s read-only: %w", path, err)
		}
	}
	return nil
}

func without(all, some []string) []string {
	var left []string
	for _, s := range all {
		if !containsAll(some, []string{s}) {
			left = append(left, s)
		}
	}
	return left
}

// mask hides a path, if it is there.
func mask(r inroot.Root, path string, null int) (there bool, err error) {
	return cover(r, path, func(fd int) error { return coverMasked(fd, null) })
}

// makeReadonly makes a path read-only, if it is there.
func makeReadonly(r inroot.Root, path string) (there bool, err error) {
	return cover(r, path, coverReadonly)
}

func cover(r inroot.Root, path string, with func(fd int) error) (there bool, err error) {
	fd, err := r.Open(path, unix.O_PATH)
	if missing(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	return true, with(fd)
}
