// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package process

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"

	"github.com/containerd/cgroups/v3"
	"github.com/containerd/cgroups/v3/cgroup1"
	"github.com/containerd/cgroups/v3/cgroup2"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Cgroup is the control group of one machine, in all version 1 hierarchies that
// limit or account, or in the one of version 2.
type Cgroup interface {
	AddProc(pid uint64) error
	Delete() error // no error when it is gone
	// OOMKills is how often the kernel killed in it because of the memory limit.
	OOMKills() uint64
}

const unifiedMountpoint = "/sys/fs/cgroup"

// CgroupPath is where c's machine belongs, relative to the hierarchy's root.
func CgroupPath(parent, id string) string {
	if parent == "" {
		parent = "micropod"
	}
	return path.Join("/", parent, id)
}

// NewCgroup makes the group. A user who may not make any gets none, unless a
// limit was asked for.
func NewCgroup(path string, memoryLimit int64) (Cgroup, error) {
	var g Cgroup
	var err error
	if cgroups.Mode() == cgroups.Unified {
		g, err = newUnified(unifiedMountpoint, path, memoryLimit)
	} else {
		g, err = newLegacy(path, memoryLimit)
	}
	if errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0 && memoryLimit == 0 {
		return NoCgroup{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("creating Cgroup %s: %w", path, err)
	}
	return g, nil
}

// LoadCgroup finds a group made earlier.
func LoadCgroup(path string) Cgroup {
	if cgroups.Mode() == cgroups.Unified {
		if m, err := cgroup2.Load(path, cgroup2.WithMountpoint(unifiedMountpoint)); err == nil {
			return unified{m}
		}
		return NoCgroup{}
	}
	c, err := cgroup1.Load(cgroup1.StaticPath(path), cgroup1.WithHierarchy(legacyHierarchy))
	if err != nil {
		return NoCgroup{}
	}
	return legacy{c}
}

// NoCgroup is the machine's that has none.
type NoCgroup struct{}

func (NoCgroup) AddProc(uint64) error { return nil }
func (NoCgroup) Delete() error        { return nil }
func (NoCgroup) OOMKills() uint64     { return 0 }

type legacy struct{ cgroup1.Cgroup }

// legacyHierarchy is the controllers that the host has of those that limit or account.
func legacyHierarchy() ([]cgroup1.Subsystem, error) {
	all, err := cgroup1.Default()
	if err != nil {
		return nil, err
	}
	wanted := []cgroup1.Name{cgroup1.Memory, cgroup1.Cpu, cgroup1.Cpuacct, cgroup1.Pids, cgroup1.Freezer}
	return slices.DeleteFunc(all, func(s cgroup1.Subsystem) bool { return !slices.Contains(wanted, s.Name()) }), nil
}

func newLegacy(path string, memoryLimit int64) (Cgroup, error) {
	resources := &specs.LinuxResources{}
	if memoryLimit > 0 {
		resources.Memory = &specs.LinuxMemory{Limit: &memoryLimit}
	}
	c, err := cgroup1.New(cgroup1.StaticPath(path), resources, cgroup1.WithHierarchy(legacyHierarchy))
	if err != nil {
		return nil, err
	}
	return legacy{c}, nil
}

func (l legacy) AddProc(pid uint64) error { return l.Cgroup.AddProc(pid) }

func (l legacy) Delete() error {
	if err := l.Cgroup.Delete(); err != nil && !errors.Is(err, cgroup1.ErrCgroupDeleted) {
		return err
	}
	return nil
}

func (l legacy) OOMKills() uint64 {
	s, err := l.Stat(cgroup1.IgnoreNotExist)
	if err != nil {
		return 0
	}
	return s.GetMemoryOomControl().GetOomKill()
}

type unified struct{ *cgroup2.Manager }

func newUnified(mountpoint, path string, memoryLimit int64) (Cgroup, error) {
	resources := &cgroup2.Resources{}
	if memoryLimit > 0 {
		resources.Memory = &cgroup2.Memory{Max: &memoryLimit}
	}
	m, err := cgroup2.NewManager(mountpoint, path, resources)
	if err != nil {
		return nil, err
	}
	return unified{m}, nil
}

func (u unified) Delete() error {
	if err := u.Manager.Delete(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (u unified) OOMKills() uint64 {
	s, err := u.Stat()
	if err != nil {
		return 0
	}
	return s.GetMemoryEvents().GetOomKill()
}
