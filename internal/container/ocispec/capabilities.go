// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package ocispec

import (
	"slices"
	"strings"

	"github.com/moby/sys/capability"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// defaultCapabilities are those Docker leaves to a container.
// https://docs.docker.com/engine/security/#linux-kernel-capabilities
var defaultCapabilities = []string{
	"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD",
	"CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
}

// allCapabilities are those of Linux 5.9 and later, sorted. A guest's kernel older than that is not supported.
var allCapabilities = func() []string {
	var all []string
	for _, c := range capability.ListKnown() {
		all = append(all, "CAP_"+strings.ToUpper(c.String()))
	}
	slices.Sort(all)
	return all
}()

// setCapabilities fills effective, permitted and bounding set alike; execve of a program
// by another user than root empties the first two.
func setCapabilities(b *Bundle, in Input) error {
	caps, err := capabilities(in.Config)
	if err != nil {
		return err
	}
	b.Spec.Process.Capabilities = capabilitySets(caps)
	return nil
}

func capabilitySets(caps []string) *specs.LinuxCapabilities {
	return &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
}

// capabilities applies Docker's rules: additions win over drops of ALL, drops win over additions of ALL,
// and a capability named on both sides is dropped.
func capabilities(c Config) ([]string, error) {
	add, err := normalizeCapabilities("--cap-add", c.CapAdd)
	if err != nil {
		return nil, err
	}
	drop, err := normalizeCapabilities("--cap-drop", c.CapDrop)
	if err != nil {
		return nil, err
	}
	var set []string
	switch {
	case c.Privileged:
		return slices.Clone(allCapabilities), nil
	case slices.Contains(add, "ALL"):
		set = slices.Clone(allCapabilities)
	case slices.Contains(drop, "ALL"):
		set = without(add, drop)
		slices.Sort(set)
		return set, nil
	default:
		set = slices.Concat(defaultCapabilities, add)
	}
	set = without(set, drop)
	slices.Sort(set)
	return slices.Compact(set), nil
}

func without(set, drop []string) []string {
	return slices.DeleteFunc(slices.Clone(set), func(c string) bool { return c == "ALL" || slices.Contains(drop, c) })
}

// normalizeCapabilities upper-cases, prefixes with CAP_ and refuses unknown names. ALL stays.
func normalizeCapabilities(field string, names []string) ([]string, error) {
	var caps []string
	for _, name := range names {
		c := strings.ToUpper(strings.TrimSpace(name))
		if c == "ALL" || c == "CAP_ALL" {
			caps = append(caps, "ALL")
			continue
		}
		if !strings.HasPrefix(c, "CAP_") {
			c = "CAP_" + c
		}
		if !slices.Contains(allCapabilities, c) {
			return nil, invalid(field, name, "there is no such capability", "see capabilities(7); ALL stands for all of them")
		}
		if !slices.Contains(caps, c) {
			caps = append(caps, c)
		}
	}
	return caps, nil
}
