// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package judge

import (
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// capabilities are Docker's default ones but for two, and one of them ambient.
var capabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_SETGID", "CAP_SETUID",
	"CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL",
}

// Spec is a spec that says something about nearly all that runtimetest looks at. Its
// container is a process of root's; give it the network namespace "" if the sysctl of the network is not to be the machine's.
func Spec() *specs.Spec {
	return &specs.Spec{
		Version:    "1.0.2", // the last that runtimetest knows
		Root:       &specs.Root{Path: "rootfs"},
		Hostname:   "judged",
		Process:    process(),
		Mounts:     mounts(),
		Linux:      linux(),
		Domainname: "example.org",
	}
}

func process() *specs.Process {
	score, umask := 100, uint32(0o027)
	return &specs.Process{
		Args: []string{Binary, "--path", "."},
		Cwd:  "/bundle",
		Env:  []string{"PATH=/bin", "ONE=1", "TWO=two words"},
		User: specs.User{UID: 0, GID: 10, AdditionalGids: []uint32{5, 20}, Umask: &umask},
		Capabilities: &specs.LinuxCapabilities{
			Bounding: capabilities, Effective: capabilities, Permitted: capabilities,
			Inheritable: capabilities, Ambient: capabilities,
		},
		Rlimits: []specs.POSIXRlimit{
			// The judge is a Go program, which raises the soft limit on files: both are alike here.
			{Type: "RLIMIT_NOFILE", Soft: 1000, Hard: 1000},
			{Type: "RLIMIT_CORE", Soft: 0, Hard: 0},
			{Type: "RLIMIT_CPU", Soft: 1000, Hard: 2000},
			{Type: "RLIMIT_STACK", Soft: 4 << 20, Hard: 64 << 20},
		},
		NoNewPrivileges: true,
		OOMScoreAdj:     &score,
	}
}

func mounts() []specs.Mount {
	return []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		// In cgroup2's own name: that is what the judge finds in /proc/self/mountinfo.
		{Destination: "/sys/fs/cgroup", Type: "cgroup2", Source: "cgroup", Options: []string{"ro", "nosuid", "noexec", "nodev"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
		{Destination: "/tmp/extra", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "size=1m"}},
	}
}

func linux() *specs.Linux {
	mode, id := os.FileMode(0o640), uint32(7)
	return &specs.Linux{
		Namespaces: []specs.LinuxNamespace{
			{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.IPCNamespace},
			{Type: specs.UTSNamespace}, {Type: specs.CgroupNamespace}, {Type: specs.NetworkNamespace},
		},
		Devices: []specs.LinuxDevice{
			{Path: "/dev/judged", Type: "c", Major: 10, Minor: 229, FileMode: &mode, UID: &id, GID: &id},
			{Path: "/dev/block", Type: "b", Major: 7, Minor: 200, FileMode: &mode, UID: &id, GID: &id},
		},
		MaskedPaths: []string{
			"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
			"/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi",
			"/sys/firmware", "/sys/devices/virtual/powercap", "/masked-file", "/masked-dir",
		},
		// Those that every kernel has: the judge wants them to be there.
		ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/readonly-file", "/readonly-dir"},
		Sysctl:        map[string]string{"kernel.shmmni": "4000", "net.ipv4.ip_unprivileged_port_start": "80"},
	}
}
