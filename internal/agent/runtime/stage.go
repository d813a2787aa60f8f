// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/agent/inroot"
)

// Mounts that nearly every container has are made, masks and device nodes and all,
// before the plan is known. A plan whose mount is exactly the same, and which
// wants every mask that is there, has it moved into place; another makes its own.

// stagedMount is such a mount in the stem's own root.
type stagedMount struct {
	plan     mountPlan
	masked   []string // paths in the container that are masked already
	readonly []string
	fd       int // O_PATH on the mount's root
	used     bool
}

// Docker's mounts, in Docker's order and words (moby, oci/defaults.go), masks and
// read-only paths. A container that asks for these starts fastest.
var (
	standardMounts = []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro", "nosuid", "noexec", "nodev"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
	}
	standardMasked = []string{
		"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi",
		"/sys/firmware", "/sys/devices/virtual/powercap",
	}
	standardReadonly = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

// stageAll makes the standard mounts below stemStaged.
func stageAll(null int) ([]stagedMount, error) {
	all := make([]stagedMount, 0, len(standardMounts))
	for i, m := range standardMounts {
		s, err := stageOne(m, stemStaged+"/"+strconv.Itoa(i), null)
		if err != nil {
			return nil, fmt.Errorf("staging %s: %w", m.Destination, err)
		}
		all = append(all, s)
	}
	return all, nil
}

func stageOne(m specs.Mount, folder string, null int) (stagedMount, error) {
	p, err := planMount(m)
	if err != nil {
		return stagedMount{}, err
	}
	s := stagedMount{plan: p}
	if err := unix.Mkdir(folder, 0o755); err != nil {
		return s, err
	}
	if s.fd, err = mountAt(p.Type, p.Source, p.Data, folder); err != nil {
		return s, err
	}
	if err := setAttr(s.fd, p.Set, p.Clear, false); err != nil {
		return s, err
	}
	if m.Destination == "/dev" {
		if err := populateDev(inroot.Root{FD: s.fd}, ""); err != nil {
			return s, err
		}
	}
	return s, s.cover(null)
}

// cover masks the standard paths that are in this mount.
func (s *stagedMount) cover(null int) error {
	r := inroot.Root{FD: s.fd}
	for _, path := range standardMasked {
		if inside, ok := strings.CutPrefix(path, s.plan.Dest+"/"); ok {
			there, err := mask(r, inside, null)
			if err != nil {
				return fmt.Errorf("masking %s: %w", path, err)
			}
			if there {
				s.masked = append(s.masked, path)
			}
		}
	}
	for _, path := range standardReadonly {
		if inside, ok := strings.CutPrefix(path, s.plan.Dest+"/"); ok {
			there, err := makeReadonly(r, inside)
			if err != nil {
				return fmt.Errorf("making %s read-only: %w", path, err)
			}
			if there {
				s.readonly = append(s.readonly, path)
			}
		}
	}
	return nil
}

// serves tells whether the staged mount is just what the plan asks for at m.
func (s *stagedMount) serves(m *mountPlan, p *containerPlan) bool {
	return !s.used && m.FD < 0 && m.Dest == s.plan.Dest && m.Type == s.plan.Type && m.Source == s.plan.Source &&
		m.Set == s.plan.Set && m.RecSet == 0 && m.RecClear == 0 && len(m.Propagation) == 0 &&
		sameElements(m.Data, s.plan.Data) && p.ownNamespace(m.Type) &&
		containsAll(p.Masked, s.masked) && containsAll(p.Readonly, s.readonly)
}

// ownNamespace tells whether the namespace that a file system shows is the stem's own.
func (p *containerPlan) ownNamespace(fstype string) bool {
	shows := map[string]uint64{
		"proc": unix.CLONE_NEWPID, "sysfs": unix.CLONE_NEWNET, "mqueue": unix.CLONE_NEWIPC, "cgroup2": unix.CLONE_NEWCGROUP,
	}[fstype]
	if p.Unshare&shows != 0 {
		return false
	}
	return !slices.ContainsFunc(p.Join, func(j joinPlan) bool { return j.Type == shows && shows != 0 })
}

func containsAll(all, some []string) bool {
	return !slices.ContainsFunc(some, func(s string) bool { return !slices.Contains(all, s) })
}

func sameElements(a, b []string) bool {
	return len(a) == len(b) && containsAll(a, b) && containsAll(b, a)
}
