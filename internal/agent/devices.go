// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	agentv1 "github.com/micropod/micropod/api/agent/v1"
)

// maxDevices bounds what one container is given.
const maxDevices = 1024

// ownDevices are the names below /dev that every container has of its own kind, and
// those that are the agent's alone: its channel to the host.
var ownDevices = []string{
	"null", "zero", "full", "random", "urandom", "tty", "console", "ptmx", "pts", "shm", "mqueue",
	"fd", "stdin", "stdout", "stderr", "core", "vport0p1",
}

// giveDevices carries out agentv1.AnnotationDevices: it puts the guest's nodes into
// linux.devices, and allows them.
func giveDevices(spec *specs.Spec) error {
	text := spec.Annotations[agentv1.AnnotationDevices]
	if text == "" {
		return nil
	}
	var wanted []agentv1.GuestDevice
	if err := json.Unmarshal([]byte(text), &wanted); err != nil {
		return fmt.Errorf("list of devices: %w", err)
	}
	if spec.Linux == nil {
		spec.Linux = &specs.Linux{}
	}
	for _, w := range wanted {
		if err := giveDevice(spec.Linux, w); err != nil {
			return fmt.Errorf("device %q: %w", w.Source, err)
		}
	}
	return nil
}

func giveDevice(linux *specs.Linux, w agentv1.GuestDevice) error {
	if w.Source != "/dev" && !strings.HasPrefix(filepath.Clean(w.Source), "/dev/") {
		return errors.New("only what is below /dev can be given")
	}
	return filepath.WalkDir(w.Source, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) && path == w.Source {
				return errors.New("the machine has no such device")
			}
			return err
		}
		below := strings.TrimPrefix(strings.TrimPrefix(path, "/dev"), "/")
		if top, _, _ := strings.Cut(below, "/"); slices.Contains(ownDevices, top) && path != w.Source {
			return skip(entry)
		}
		if entry.IsDir() {
			return nil
		}
		return addNode(linux, path, filepath.Join(w.Path, strings.TrimPrefix(path, w.Source)), w.Permissions)
	})
}

func skip(entry fs.DirEntry) error {
	if entry.IsDir() {
		return filepath.SkipDir
	}
	return nil
}

// addNode gives the container the node at path, if it is one, as target.
func addNode(linux *specs.Linux, path, target, permissions string) error {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return err
	}
	kinds := map[uint32]string{unix.S_IFCHR: "c", unix.S_IFBLK: "b"}
	kind := kinds[st.Mode&unix.S_IFMT]
	if kind == "" {
		return nil // a link or a socket
	}
	if len(linux.Devices) >= maxDevices {
		return fmt.Errorf("more than %d devices", maxDevices)
	}
	major, minor := int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	mode := fs.FileMode(st.Mode & 0o777)
	linux.Devices = append(linux.Devices, specs.LinuxDevice{
		Path: target, Type: kind, Major: major, Minor: minor, FileMode: &mode, UID: &st.Uid, GID: &st.Gid,
	})
	if linux.Resources == nil {
		linux.Resources = &specs.LinuxResources{}
	}
	linux.Resources.Devices = append(linux.Resources.Devices, specs.LinuxDeviceCgroup{
		Allow: true, Type: kind, Major: &major, Minor: &minor, Access: permissions,
	})
	return nil
}
