// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"strings"

	"github.com/moby/sys/capability"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// rlimits by the spec's names.
var rlimits = map[string]int{
	"RLIMIT_AS": unix.RLIMIT_AS, "RLIMIT_CORE": unix.RLIMIT_CORE, "RLIMIT_CPU": unix.RLIMIT_CPU,
	"RLIMIT_DATA": unix.RLIMIT_DATA, "RLIMIT_FSIZE": unix.RLIMIT_FSIZE, "RLIMIT_LOCKS": unix.RLIMIT_LOCKS,
	"RLIMIT_MEMLOCK": unix.RLIMIT_MEMLOCK, "RLIMIT_MSGQUEUE": unix.RLIMIT_MSGQUEUE, "RLIMIT_NICE": unix.RLIMIT_NICE,
	"RLIMIT_NOFILE": unix.RLIMIT_NOFILE, "RLIMIT_NPROC": unix.RLIMIT_NPROC, "RLIMIT_RSS": unix.RLIMIT_RSS,
	"RLIMIT_RTPRIO": unix.RLIMIT_RTPRIO, "RLIMIT_RTTIME": unix.RLIMIT_RTTIME,
	"RLIMIT_SIGPENDING": unix.RLIMIT_SIGPENDING, "RLIMIT_STACK": unix.RLIMIT_STACK,
}

func planRlimits(all []specs.POSIXRlimit) ([]rlimitPlan, error) {
	plans := make([]rlimitPlan, 0, len(all))
	seen := make(map[string]bool)
	for _, l := range all {
		resource, ok := rlimits[l.Type]
		if !ok || seen[l.Type] {
			return nil, invalid("rlimit %q is unknown or given twice", l.Type)
		}
		if l.Soft > l.Hard {
			return nil, invalid("%s: the soft limit %d is above the hard limit %d", l.Type, l.Soft, l.Hard)
		}
		seen[l.Type] = true
		plans = append(plans, rlimitPlan{Resource: resource, Soft: l.Soft, Hard: l.Hard})
	}
	return plans, nil
}

// capabilityBits has the bit of each capability by the spec's name, such as CAP_CHOWN.
var capabilityBits = func() map[string]uint64 {
	bits := make(map[string]uint64)
	for _, c := range capability.ListKnown() {
		bits["CAP_"+strings.ToUpper(c.String())] = 1 << c
	}
	return bits
}()

// planCaps turns names into bits. No capabilities at all: none.
func planCaps(c *specs.LinuxCapabilities) (capsPlan, error) {
	if c == nil {
		return capsPlan{}, nil
	}
	var p capsPlan
	for _, set := range []struct {
		bits  *uint64
		names []string
	}{
		{&p.Bounding, c.Bounding}, {&p.Effective, c.Effective}, {&p.Inheritable, c.Inheritable},
		{&p.Permitted, c.Permitted}, {&p.Ambient, c.Ambient},
	} {
		for _, name := range set.names {
			bit, ok := capabilityBits[name]
			if !ok {
				return p, invalid("unknown capability %q", name)
			}
			*set.bits |= bit
		}
	}
	return p, nil
}
