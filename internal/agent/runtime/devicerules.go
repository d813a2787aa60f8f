// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// deviceRule is one rule of the spec on which devices a container may open or make; the last that matches counts.
type deviceRule struct {
	allow        bool
	kind         uint32 // BPF_DEVCG_DEV_*, 0: any
	major, minor int64  // -1: any
	access       uint32 // BPF_DEVCG_ACC_*
}

const (
	anyNumber = -1
	accessAll = unix.BPF_DEVCG_ACC_MKNOD | unix.BPF_DEVCG_ACC_READ | unix.BPF_DEVCG_ACC_WRITE
)

// alwaysAllowed is what no rule takes away: the devices that every container has,
// terminals, and making (not opening) nodes of any kind.
var alwaysAllowed = []deviceRule{
	{true, unix.BPF_DEVCG_DEV_CHAR, anyNumber, anyNumber, unix.BPF_DEVCG_ACC_MKNOD},
	{true, unix.BPF_DEVCG_DEV_BLOCK, anyNumber, anyNumber, unix.BPF_DEVCG_ACC_MKNOD},
	{true, unix.BPF_DEVCG_DEV_CHAR, 1, 3, accessAll},           // null
	{true, unix.BPF_DEVCG_DEV_CHAR, 1, 5, accessAll},           // zero
	{true, unix.BPF_DEVCG_DEV_CHAR, 1, 7, accessAll},           // full
	{true, unix.BPF_DEVCG_DEV_CHAR, 1, 8, accessAll},           // random
	{true, unix.BPF_DEVCG_DEV_CHAR, 1, 9, accessAll},           // urandom
	{true, unix.BPF_DEVCG_DEV_CHAR, 5, 0, accessAll},           // tty
	{true, unix.BPF_DEVCG_DEV_CHAR, 5, 2, accessAll},           // ptmx
	{true, unix.BPF_DEVCG_DEV_CHAR, 136, anyNumber, accessAll}, // pts
}

func planDeviceRules(rules []specs.LinuxDeviceCgroup) ([]deviceRule, error) {
	if len(rules) == 0 {
		return nil, nil
	}
	var all []deviceRule
	for _, r := range rules {
		rule, err := planDeviceRule(r)
		if err != nil {
			return nil, err
		}
		all = append(all, rule)
	}
	return append(all, alwaysAllowed...), nil
}

func planDeviceRule(r specs.LinuxDeviceCgroup) (deviceRule, error) {
	kinds := map[string]uint32{"": 0, "a": 0, "b": unix.BPF_DEVCG_DEV_BLOCK, "c": unix.BPF_DEVCG_DEV_CHAR, "u": unix.BPF_DEVCG_DEV_CHAR}
	kind, ok := kinds[r.Type]
	if !ok {
		return deviceRule{}, invalid("device rule of type %q", r.Type)
	}
	rule := deviceRule{allow: r.Allow, kind: kind, major: anyNumber, minor: anyNumber}
	if r.Major != nil {
		rule.major = *r.Major
	}
	if r.Minor != nil {
		rule.minor = *r.Minor
	}
	for _, c := range r.Access {
		bit, ok := map[rune]uint32{'r': unix.BPF_DEVCG_ACC_READ, 'w': unix.BPF_DEVCG_ACC_WRITE, 'm': unix.BPF_DEVCG_ACC_MKNOD}[c]
		if !ok {
			return rule, invalid("device rule with access %q", r.Access)
		}
		rule.access |= bit
	}
	if rule.access == 0 {
		rule.access = accessAll
	}
	return rule, nil
}
