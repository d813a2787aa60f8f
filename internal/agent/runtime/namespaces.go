// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// namespaceKind is a type of namespace, in the spec's word, the kernel's number and its name in /proc/PID/ns.
type namespaceKind struct {
	name specs.LinuxNamespaceType
	flag uint64
	file string
}

// namespaceKinds in the order in which they are entered: after the mount namespace, no path means what it did.
var namespaceKinds = []namespaceKind{
	{specs.CgroupNamespace, unix.CLONE_NEWCGROUP, "cgroup"},
	{specs.IPCNamespace, unix.CLONE_NEWIPC, "ipc"},
	{specs.UTSNamespace, unix.CLONE_NEWUTS, "uts"},
	{specs.NetworkNamespace, unix.CLONE_NEWNET, "net"},
	{specs.PIDNamespace, unix.CLONE_NEWPID, "pid"},
	{specs.MountNamespace, unix.CLONE_NEWNS, "mnt"},
}

func namespaceName(flag uint64) specs.LinuxNamespaceType {
	for _, k := range namespaceKinds {
		if k.flag == flag {
			return k.name
		}
	}
	return "unknown"
}

// namespaces plans how to get from the stem's namespaces to the spec's. The stem has new
// ones of all kinds but network; one that the spec does not list is the machine's.
func (c *compiled) namespaces(s *specs.Spec) error {
	wanted := make(map[specs.LinuxNamespaceType]string)
	for _, n := range s.Linux.Namespaces {
		if _, twice := wanted[n.Type]; twice || namespaceFlag(n.Type) == 0 {
			return invalid("namespace %q is not supported or given twice", n.Type)
		}
		wanted[n.Type] = n.Path
	}
	if path, ok := wanted[specs.MountNamespace]; !ok || path != "" {
		return invalid("a container needs a new mount namespace")
	}
	if _, ok := wanted[specs.UTSNamespace]; !ok && s.Hostname+s.Domainname != "" {
		return invalid("hostname and domainname need a uts namespace")
	}
	for _, k := range namespaceKinds {
		path, listed := wanted[k.name]
		if err := c.namespace(k, path, listed); err != nil {
			return err
		}
	}
	return nil
}

func namespaceFlag(name specs.LinuxNamespaceType) uint64 {
	for _, k := range namespaceKinds {
		if k.name == name {
			return k.flag
		}
	}
	return 0
}

func (c *compiled) namespace(k namespaceKind, path string, listed bool) error {
	switch {
	case k.flag == unix.CLONE_NEWNS:
		return nil
	case k.flag == unix.CLONE_NEWPID: // a process cannot change its own
		c.shape = stemShape{hostPID: !listed, pidPath: path}
		return nil
	case k.flag == unix.CLONE_NEWNET && path == "":
		if listed {
			c.plan.Unshare |= k.flag
		}
		return nil // the stem is in the machine's
	case listed && path == "":
		return nil // the stem has a new one
	case !listed:
		path = "/proc/self/ns/" + k.file
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	c.plan.Join = append(c.plan.Join, joinPlan{FD: c.add(fd), Type: k.flag})
	return nil
}

// namespaceFiles are a container's namespaces, held open. They keep its mounts alive
// until they are closed: that is slow, so an exit does not wait for it.
type namespaceFiles []*os.File // in the order of namespaceKinds

func openNamespaces(pid int) (namespaceFiles, error) {
	var files namespaceFiles
	for _, k := range namespaceKinds {
		f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/ns/" + k.file)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("holding the container's namespaces: %w", err), files.close())
		}
		files = append(files, f)
	}
	return files, nil
}

func (n namespaceFiles) close() error {
	var errs []error
	for _, f := range n {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// pid is the container's pid namespace.
func (n namespaceFiles) pid() *os.File {
	for i, k := range namespaceKinds {
		if k.flag == unix.CLONE_NEWPID {
			return n[i]
		}
	}
	return nil
}
