// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package ocispec

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

const (
	cpuPeriod      = 100_000 // microseconds, the kernel's and Docker's default
	minMemoryBytes = 6 << 20 // Docker's least
	maxCPUShares   = 262144  // the kernel's
)

var cpusetPattern = regexp.MustCompile(`^[0-9]{1,4}(-[0-9]{1,4})?(,[0-9]{1,4}(-[0-9]{1,4})?)*$`)

// setResources writes the cgroup's limits.
func setResources(b *Bundle, in Input) error {
	limits, err := Limits(in.Config.Resources)
	if err != nil {
		return err
	}
	to := b.Spec.Linux.Resources
	to.Memory, to.CPU, to.Pids = limits.Memory, limits.CPU, limits.Pids
	return nil
}

// Limits makes resources into what a container's cgroup enforces, devices excepted.
func Limits(r Resources) (*specs.LinuxResources, error) {
	for _, check := range []func(Resources) error{checkMemory, checkCPU, checkPids} {
		if err := check(r); err != nil {
			return nil, err
		}
	}
	return &specs.LinuxResources{Memory: memoryLimit(r), CPU: cpuLimit(r), Pids: pidsLimit(r)}, nil
}

func checkMemory(r Resources) error {
	if r.MemoryBytes != 0 && r.MemoryBytes < minMemoryBytes {
		return invalid("--memory", fmt.Sprint(r.MemoryBytes), "at least 6 MiB are needed", "give a size such as 256m")
	}
	if soft := r.MemoryReservationBytes; soft < 0 || soft > 0 && r.MemoryBytes > 0 && soft > r.MemoryBytes {
		return invalid("--memory-reservation", fmt.Sprint(soft), "is a soft limit and so not above --memory", "")
	}
	swap := r.MemorySwapBytes
	if swap < -1 {
		return invalid("--memory-swap", fmt.Sprint(swap), "is negative", "-1 means unlimited")
	}
	if swap > 0 && r.MemoryBytes == 0 {
		return invalid("--memory-swap", fmt.Sprint(swap), "needs --memory beside it", "")
	}
	if swap > 0 && swap < r.MemoryBytes {
		return invalid("--memory-swap", fmt.Sprint(swap), "is memory and swap together and so at least --memory", "")
	}
	return nil
}

func checkCPU(r Resources) error {
	if r.NanoCPUs < 0 || r.NanoCPUs > 0 && r.NanoCPUs < 1e7 {
		return invalid("--cpus", fmt.Sprint(float64(r.NanoCPUs)/1e9), "at least 0.01 is needed", "")
	}
	if r.CPUShares != 0 && (r.CPUShares < 2 || r.CPUShares > maxCPUShares) {
		return invalid("--cpu-shares", fmt.Sprint(r.CPUShares), fmt.Sprintf("must be between 2 and %d", maxCPUShares), "")
	}
	if r.CpusetCPUs != "" && (len(r.CpusetCPUs) > 256 || !cpusetPattern.MatchString(r.CpusetCPUs)) {
		return invalid("--cpuset-cpus", r.CpusetCPUs, "is not a list of CPUs", "such as 0-2,4")
	}
	return nil
}

func checkPids(r Resources) error {
	if r.PidsLimit < -1 {
		return invalid("--pids-limit", fmt.Sprint(r.PidsLimit), "is negative", "-1 means unlimited")
	}
	return nil
}

// memoryLimit follows Docker: swap not given is as much again as memory.
func memoryLimit(r Resources) *specs.LinuxMemory {
	if r.MemoryBytes == 0 && r.MemorySwapBytes == 0 && r.MemoryReservationBytes == 0 {
		return nil
	}
	m := &specs.LinuxMemory{}
	if r.MemoryReservationBytes > 0 {
		m.Reservation = &r.MemoryReservationBytes
	}
	if r.MemoryBytes == 0 && r.MemorySwapBytes == 0 {
		return m
	}
	swap := r.MemorySwapBytes
	if r.MemoryBytes > 0 {
		m.Limit = &r.MemoryBytes
		if swap == 0 {
			swap = 2 * r.MemoryBytes
		}
	}
	m.Swap = &swap
	return m
}

func cpuLimit(r Resources) *specs.LinuxCPU {
	if r.NanoCPUs == 0 && r.CPUShares == 0 && r.CpusetCPUs == "" {
		return nil
	}
	c := &specs.LinuxCPU{Cpus: r.CpusetCPUs}
	if r.NanoCPUs > 0 {
		period, quota := uint64(cpuPeriod), r.NanoCPUs/(1e9/cpuPeriod)
		c.Period, c.Quota = &period, &quota
	}
	if r.CPUShares > 0 {
		shares := uint64(r.CPUShares)
		c.Shares = &shares
	}
	return c
}

func pidsLimit(r Resources) *specs.LinuxPids {
	if r.PidsLimit == 0 {
		return nil
	}
	return &specs.LinuxPids{Limit: &r.PidsLimit}
}

// sysctlPattern bounds names to what can be a path below /proc/sys.
var sysctlPattern = regexp.MustCompile(`^[a-zA-Z0-9_-]+([./][a-zA-Z0-9_:@-]+)+$`)

// setSysctls takes any sysctl: the kernel is the machine's own, so none can harm a neighbour.
func setSysctls(b *Bundle, in Input) error {
	for name, value := range in.Config.Sysctls {
		if len(name) > 256 || !sysctlPattern.MatchString(name) {
			return invalid("--sysctl", name, "is not the name of a kernel parameter", "such as net.core.somaxconn=1024")
		}
		if len(value) > 4096 || strings.ContainsAny(value, "\x00\n") {
			return invalid("--sysctl "+name, value, "the value must be one line of at most 4096 bytes", "")
		}
	}
	if len(in.Config.Sysctls) > 0 {
		b.Spec.Linux.Sysctl = in.Config.Sysctls
	}
	return nil
}
