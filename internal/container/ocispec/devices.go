// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package ocispec

import (
	"encoding/json"
	"fmt"
	"path"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	agentv1 "github.com/micropod/micropod/api/agent/v1"
)

// defaultDeviceRules is the device cgroup of Docker's containers: nodes may be
// made, but only those that OCI gives to every container may be opened.
func defaultDeviceRules() []specs.LinuxDeviceCgroup {
	rule := func(kind string, major, minor int64, access string) specs.LinuxDeviceCgroup {
		return specs.LinuxDeviceCgroup{Allow: true, Type: kind, Major: &major, Minor: &minor, Access: access}
	}
	const any = -1
	return []specs.LinuxDeviceCgroup{
		{Allow: false, Access: "rwm"},
		rule("c", any, any, "m"),
		rule("b", any, any, "m"),
		rule("c", 1, 3, "rwm"),     // null
		rule("c", 1, 5, "rwm"),     // zero
		rule("c", 1, 7, "rwm"),     // full
		rule("c", 1, 8, "rwm"),     // random
		rule("c", 1, 9, "rwm"),     // urandom
		rule("c", 5, 0, "rwm"),     // tty
		rule("c", 5, 1, "rwm"),     // console
		rule("c", 5, 2, "rwm"),     // ptmx
		rule("c", 136, any, "rwm"), // pts/*
	}
}

// setDevices gives the device cgroup its rules and tells the agent which of the guest's nodes are wanted.
func setDevices(b *Bundle, in Input) error {
	var devices []agentv1.GuestDevice
	b.Spec.Linux.Resources.Devices = defaultDeviceRules()
	if in.Config.Privileged {
		b.Spec.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
		devices = append(devices, agentv1.GuestDevice{Source: "/dev", Path: "/dev", Permissions: "rwm"})
	}
	for _, d := range in.Config.Devices {
		g, err := guestDevice(d)
		if err != nil {
			return err
		}
		devices = append(devices, g)
	}
	if len(devices) == 0 {
		return nil
	}
	text, err := json.Marshal(devices)
	if err != nil {
		return fmt.Errorf("encoding the list of devices: %w", err)
	}
	b.Spec.Annotations[agentv1.AnnotationDevices] = string(text)
	return nil
}

func guestDevice(d Device) (agentv1.GuestDevice, error) {
	g := agentv1.GuestDevice{Source: path.Clean(d.GuestPath), Path: path.Clean(d.ContainerPath), Permissions: d.Permissions}
	if d.ContainerPath == "" {
		g.Path = g.Source
	}
	if g.Permissions == "" {
		g.Permissions = "rwm"
	}
	if !strings.HasPrefix(g.Source, "/dev/") {
		return g, invalid("--device", d.GuestPath, "is not a device of the guest: it is not below /dev", "such as /dev/fuse")
	}
	if !path.IsAbs(g.Path) || g.Path == "/" || strings.IndexByte(g.Source+g.Path, 0) >= 0 {
		return g, invalid("--device", d.ContainerPath, "the path in the container must be absolute", "such as /dev/fuse:/dev/fuse:rw")
	}
	if strings.Trim(g.Permissions, "rwm") != "" || len(g.Permissions) > 3 {
		return g, invalid("--device", d.Permissions, "permissions are made of r, w and m", "such as /dev/fuse:/dev/fuse:rw")
	}
	return g, nil
}
