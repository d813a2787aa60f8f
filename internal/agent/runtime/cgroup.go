// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// cgroups makes containers' cgroups (v2) below one folder. Files are read and written
// directly: containerd/cgroups' cgroup2 would add 5 MB (systemd's D-Bus client, an
// eBPF assembler, logging) to a binary of at most 8.
type cgroups struct {
	root        string
	controllers []string // that are switched on for what is below root
	next        atomic.Uint64
}

// openCgroups makes root where missing and switches all its controllers on.
func openCgroups(root string) (*cgroups, error) {
	if err := os.MkdirAll(root, 0o755); err != nil {
		return nil, err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(root, &st); err != nil || st.Type != unix.CGROUP2_SUPER_MAGIC {
		return nil, fmt.Errorf("%s is not in a cgroup v2 hierarchy", root)
	}
	b, err := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
	if err != nil {
		return nil, err
	}
	g := &cgroups{root: root, controllers: strings.Fields(string(b))}
	all := "+" + strings.Join(g.controllers, " +")
	if err := writeFile(filepath.Join(root, "cgroup.subtree_control"), all); err != nil && len(g.controllers) > 0 {
		return nil, fmt.Errorf("switching cgroup controllers %s on below %s: %w", all, root, err)
	}
	return g, nil
}

// create makes a cgroup. Its name tells nothing: stems get theirs before their container is known.
func (g *cgroups) create() (*cgroup, error) {
	for {
		path := filepath.Join(g.root, "c"+strconv.FormatUint(g.next.Add(1), 10))
		err := os.Mkdir(path, 0o755)
		if errors.Is(err, fs.ErrExist) { // of an earlier runtime
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("making a cgroup: %w", err)
		}
		dir, err := os.Open(path)
		if err != nil {
			return nil, errors.Join(err, os.Remove(path))
		}
		return &cgroup{path: path, dir: dir, controllers: g.controllers}, nil
	}
}

// cgroup is one container's.
type cgroup struct {
	path        string
	dir         *os.File
	controllers []string
}

// remove removes the cgroup, whose processes have all ended, and those that the container made below it.
func (g *cgroup) remove() error {
	g.dir.Close()
	return removeTree(g.path)
}

// removeTree removes a cgroup folder with all below it. Files in it come and go with the folders.
func removeTree(path string) error {
	if err := unix.Rmdir(path); err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	entries, err := os.ReadDir(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(path, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := unix.Rmdir(path); err != nil && !errors.Is(err, unix.ENOENT) {
		return &os.PathError{Op: "rmdir", Path: path, Err: err}
	}
	return nil
}

// kill kills every process in the cgroup and below it (cgroup.kill, kernel 5.14 and later).
func (g *cgroup) kill() error {
	return writeFile(filepath.Join(g.path, "cgroup.kill"), "1")
}

// signal sends sig to every process in the cgroup and below it. One that is born meanwhile may be missed.
func (g *cgroup) signal(sig syscall.Signal) error {
	if sig == unix.SIGKILL {
		return g.kill()
	}
	pids, err := g.pids()
	for _, pid := range pids {
		if killErr := unix.Kill(pid, sig); killErr != nil && !errors.Is(killErr, unix.ESRCH) {
			err = errors.Join(err, fmt.Errorf("sending signal %d to process %d: %w", sig, pid, killErr))
		}
	}
	return err
}

// pids are the processes in the cgroup and below it.
func (g *cgroup) pids() ([]int, error) {
	var all []int
	err := g.each(func(_ string, pids []int) { all = append(all, pids...) })
	return all, err
}

// holding gives the cgroup, this one or one below it, that a process is in; the caller closes its folder.
func (g *cgroup) holding(pid int) (*cgroup, error) {
	var found string
	err := g.each(func(path string, pids []int) {
		if slices.Contains(pids, pid) {
			found = path
		}
	})
	if err != nil {
		return nil, err
	}
	if found == "" {
		return nil, fmt.Errorf("process %d is not in %s", pid, g.path)
	}
	dir, err := os.Open(found)
	if err != nil {
		return nil, err
	}
	return &cgroup{path: found, dir: dir, controllers: g.controllers}, nil
}

// each shows the folders of the cgroup and of those below it, with the processes in each.
func (g *cgroup) each(show func(path string, pids []int)) error {
	return filepath.WalkDir(g.path, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !d.IsDir() {
			return err
		}
		b, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EOPNOTSUPP) {
			return nil // gone meanwhile, or threaded
		}
		var pids []int
		for field := range strings.FieldsSeq(string(b)) {
			if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
				pids = append(pids, pid)
			}
		}
		show(path, pids)
		return err
	})
}

// emptyPoll bounds how long a wait for an empty cgroup goes without looking at its context (ms).
const emptyPoll = 100

// waitEmpty waits until no process is left in the cgroup or below it.
func (g *cgroup) waitEmpty(ctx context.Context) error {
	f, err := os.Open(filepath.Join(g.path, "cgroup.events"))
	if err != nil {
		return err
	}
	defer f.Close()
	var buf [256]byte
	for {
		n, err := f.ReadAt(buf[:], 0)
		if n == 0 {
			return err
		}
		if strings.Contains(string(buf[:n]), "populated 0") {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		// The kernel wakes pollers of the file when its content changes (cgroup-v2.rst, "[Un]populated Notification").
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLPRI}}, emptyPoll)
	}
}

// writeFile writes a kernel's file, which must exist, in one call.
func writeFile(path, value string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(value)
	return err
}
