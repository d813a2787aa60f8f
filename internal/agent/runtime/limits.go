// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// limits are what a container's cgroup allows: files to write, in order, and devices to let through.
type limits struct {
	files   []limitFile
	devices []deviceRule // none: every device
}

// limitFile is a file of a cgroup (Documentation/admin-guide/cgroup-v2.rst) and what to write to it.
type limitFile struct{ name, value string }

// controller that the file belongs to; "cgroup" for those that every cgroup has.
func (l limitFile) controller() string {
	name, _, _ := strings.Cut(l.name, ".")
	return name
}

// apply sets the limits. It is called when only execve is left, so that none is spent on setting the container up.
func (g *cgroup) apply(l limits) error {
	if err := g.set(l.files); err != nil {
		return err
	}
	return g.filterDevices(l.devices)
}

// set writes limits to their files.
func (g *cgroup) set(files []limitFile) error {
	for _, f := range files {
		if c := f.controller(); c != "cgroup" && !slices.Contains(g.controllers, c) {
			return fmt.Errorf("setting %s to %q: this machine has no cgroup controller %q", f.name, f.value, c)
		}
		if err := writeFile(filepath.Join(g.path, f.name), f.value); err != nil {
			return fmt.Errorf("setting the container's %s to %q: %w", f.name, f.value, err)
		}
	}
	return nil
}

func planLimits(r *specs.LinuxResources) (limits, error) {
	if r == nil {
		return limits{}, nil
	}
	if r.Network != nil || len(r.Rdma) > 0 {
		return limits{}, invalid("limits of network and rdma are not supported")
	}
	l := limits{}
	l.cpu(r.CPU)
	l.memory(r.Memory)
	if r.Pids != nil && r.Pids.Limit != nil {
		l.addLimit("pids.max", *r.Pids.Limit)
	}
	for _, h := range r.HugepageLimits {
		l.add("hugetlb."+h.Pagesize+".max", strconv.FormatUint(h.Limit, 10))
	}
	l.io(r.BlockIO)
	for _, name := range slices.Sorted(maps.Keys(r.Unified)) {
		if !fs.ValidPath(name) || strings.Contains(name, "/") || !strings.Contains(name, ".") {
			return limits{}, invalid("%q is no file of a cgroup", name)
		}
		for line := range strings.Lines(r.Unified[name]) {
			l.add(name, strings.TrimSuffix(line, "\n"))
		}
	}
	var err error
	l.devices, err = planDeviceRules(r.Devices)
	return l, err
}

func (l *limits) add(name, value string) { l.files = append(l.files, limitFile{name, value}) }

// addLimit adds a number of which 0 and below mean no limit, as Docker has it.
func (l *limits) addLimit(name string, n int64) {
	if n <= 0 {
		l.add(name, "max")
		return
	}
	l.add(name, strconv.FormatInt(n, 10))
}

// defaultPeriod is the kernel's own for cpu.max (µs).
const defaultPeriod = 100_000

func (l *limits) cpu(c *specs.LinuxCPU) {
	if c == nil {
		return
	}
	if c.Shares != nil && *c.Shares > 0 {
		l.add("cpu.weight", strconv.FormatUint(weightOf(*c.Shares), 10))
	}
	if c.Quota != nil || c.Period != nil {
		quota, period := "max", uint64(defaultPeriod)
		if c.Quota != nil && *c.Quota > 0 {
			quota = strconv.FormatInt(*c.Quota, 10)
		}
		if c.Period != nil && *c.Period > 0 {
			period = *c.Period
		}
		l.add("cpu.max", quota+" "+strconv.FormatUint(period, 10))
	}
	if c.Burst != nil {
		l.add("cpu.max.burst", strconv.FormatUint(*c.Burst, 10))
	}
	if c.Idle != nil {
		l.add("cpu.idle", strconv.FormatInt(*c.Idle, 10))
	}
	if c.Cpus != "" {
		l.add("cpuset.cpus", c.Cpus)
	}
	if c.Mems != "" {
		l.add("cpuset.mems", c.Mems)
	}
}

// weightOf maps cgroup v1's shares, 2 to 262144, onto v2's weight, 1 to 10000, as
// other runtimes do (runtime-spec has only shares).
func weightOf(shares uint64) uint64 {
	shares = min(max(shares, 2), 262144)
	return 1 + (shares-2)*9999/262142
}

func (l *limits) memory(m *specs.LinuxMemory) {
	if m == nil {
		return
	}
	if m.Reservation != nil && *m.Reservation > 0 {
		l.add("memory.low", strconv.FormatInt(*m.Reservation, 10))
	}
	if m.Limit != nil {
		l.addLimit("memory.max", *m.Limit)
	}
	if m.Swap == nil {
		return
	}
	// The spec's swap counts memory as well; 0 is unset.
	switch {
	case *m.Swap < 0:
		l.add("memory.swap.max", "max")
	case *m.Swap > 0 && m.Limit != nil:
		l.add("memory.swap.max", strconv.FormatInt(max(*m.Swap-*m.Limit, 0), 10))
	}
}

func (l *limits) io(b *specs.LinuxBlockIO) {
	if b == nil {
		return
	}
	if b.Weight != nil && *b.Weight > 0 {
		l.add("io.weight", strconv.FormatUint(ioWeight(*b.Weight), 10))
	}
	for _, w := range b.WeightDevice {
		if w.Weight != nil {
			l.add("io.weight", fmt.Sprintf("%d:%d %d", w.Major, w.Minor, ioWeight(*w.Weight)))
		}
	}
	for _, t := range []struct {
		key     string
		devices []specs.LinuxThrottleDevice
	}{
		{"rbps", b.ThrottleReadBpsDevice}, {"wbps", b.ThrottleWriteBpsDevice},
		{"riops", b.ThrottleReadIOPSDevice}, {"wiops", b.ThrottleWriteIOPSDevice},
	} {
		for _, d := range t.devices {
			l.add("io.max", fmt.Sprintf("%d:%d %s=%d", d.Major, d.Minor, t.key, d.Rate))
		}
	}
}

// ioWeight maps v1's weight, 10 to 1000, onto v2's, 1 to 10000.
func ioWeight(w uint16) uint64 {
	n := min(max(uint64(w), 10), 1000)
	return 1 + (n-10)*9999/990
}
