// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package ocispec

import (
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

const (
	defaultShmBytes = 64 << 20
	minShmBytes     = 4096 // one page
)

// maskedPaths and readonlyPaths are Docker's (moby, daemon/pkg/oci/defaults.go).
var (
	maskedPaths = []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
		"/sys/devices/virtual/powercap", "/sys/firmware",
	}
	readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

// keptByReadOnly are the mounts that --read-only leaves writable.
var keptByReadOnly = []string{"/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"}

// setMounts makes Docker's default mounts, changed by --privileged, --read-only, --shm-size and --tmpfs.
func setMounts(b *Bundle, in Input) error {
	shm := in.Config.Resources.ShmBytes
	if shm == 0 {
		shm = defaultShmBytes
	}
	if shm < minShmBytes {
		return invalid("--shm-size", fmt.Sprint(shm), "must be at least one page, 4096 bytes", "give a size such as 64m")
	}
	mounts := defaultMounts(shm, in.Config.Privileged)
	if in.Config.ReadOnly {
		for i, m := range mounts {
			if !slices.Contains(keptByReadOnly, m.Destination) && !slices.Contains(m.Options, "ro") {
				mounts[i].Options = append(m.Options, "ro")
			}
		}
	}
	tmpfs, err := tmpfsMounts(in.Config.Tmpfs)
	if err != nil {
		return err
	}
	// A tmpfs of the user's over a default mount takes its place, as in Docker.
	mounts = slices.DeleteFunc(mounts, func(m specs.Mount) bool {
		return slices.ContainsFunc(tmpfs, func(t specs.Mount) bool { return t.Destination == m.Destination })
	})
	b.Spec.Mounts = append(mounts, tmpfs...)
	return nil
}

func defaultMounts(shmBytes int64, privileged bool) []specs.Mount {
	sys := []string{"nosuid", "noexec", "nodev"}
	sysMode := "ro"
	if privileged {
		sysMode = "rw"
	}
	return []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: slices.Clone(sys)},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts",
			Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: append(slices.Clone(sys), sysMode)},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: append(slices.Clone(sys), sysMode)},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: slices.Clone(sys)},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm",
			Options: append(slices.Clone(sys), "mode=1777", fmt.Sprintf("size=%dk", (shmBytes+1023)/1024))},
	}
}

// tmpfsMounts turns --tmpfs into mounts, sorted so that parents come first.
func tmpfsMounts(tmpfs map[string]string) ([]specs.Mount, error) {
	var mounts []specs.Mount
	for _, dest := range slices.Sorted(maps.Keys(tmpfs)) {
		clean := path.Clean(dest)
		if !path.IsAbs(dest) || strings.IndexByte(dest, 0) >= 0 {
			return nil, invalid("--tmpfs", dest, "must be an absolute path", "begin it with /")
		}
		if clean == "/" || clean == "/proc" || clean == "/sys" || clean == "/dev" {
			return nil, invalid("--tmpfs", dest, "would hide what the container needs", "mount it on another folder, such as /tmp")
		}
		options, err := tmpfsOptions(tmpfs[dest])
		if err != nil {
			return nil, err
		}
		mounts = append(mounts, specs.Mount{Destination: clean, Type: "tmpfs", Source: "tmpfs", Options: options})
	}
	return mounts, nil
}

// tmpfsFlags maps each flag of a tmpfs to its opposite, so that the last one given counts.
var tmpfsFlags = map[string]string{
	"ro": "rw", "rw": "ro", "exec": "noexec", "noexec": "exec", "suid": "nosuid", "nosuid": "suid", "dev": "nodev", "nodev": "dev",
	"sync": "async", "async": "sync", "atime": "noatime", "noatime": "atime", "diratime": "nodiratime", "nodiratime": "diratime",
	"strictatime": "relatime", "relatime": "strictatime", "mand": "nomand", "nomand": "mand",
}

var tmpfsSettings = map[string]*regexp.Regexp{
	"size":      regexp.MustCompile(`^[0-9]{1,18}[kmgKMG%]?$`),
	"nr_blocks": regexp.MustCompile(`^[0-9]{1,18}[kmgKMG]?$`),
	"nr_inodes": regexp.MustCompile(`^[0-9]{1,18}[kmgKMG]?$`),
	"mode":      regexp.MustCompile(`^[0-7]{1,5}$`),
	"uid":       regexp.MustCompile(`^[0-9]{1,10}$`),
	"gid":       regexp.MustCompile(`^[0-9]{1,10}$`),
	"mpol":      regexp.MustCompile(`^[a-z0-9:=,-]+$`),
}

// tmpfsOptions merges the user's options over Docker's defaults.
func tmpfsOptions(user string) ([]string, error) {
	options := []string{"noexec", "nosuid", "nodev"}
	for o := range strings.SplitSeq(user, ",") {
		name, value, set := strings.Cut(o, "=")
		pattern, known := tmpfsSettings[name]
		opposite, flag := tmpfsFlags[name]
		switch {
		case o == "":
			continue
		case flag && !set:
			options = slices.DeleteFunc(options, func(have string) bool { return have == opposite || have == name })
		case known && set && pattern.MatchString(value):
			options = slices.DeleteFunc(options, func(have string) bool { return strings.HasPrefix(have, name+"=") })
		default:
			return nil, invalid("--tmpfs option", o, "is not one of a tmpfs", "such as size=64m, mode=1777, uid=1000, exec, ro")
		}
		options = append(options, o)
	}
	return options, nil
}
