// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package ocispec

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// ulimits are the kernel's resource limits, getrlimit(2).
var ulimits = []string{
	"as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio", "rttime",
	"sigpending", "stack",
}

// defaultNofile is what systemd and recent container engines give: low enough for
// programs that loop over all descriptors or use select, high enough to be raised.
var defaultNofile = specs.POSIXRlimit{Type: "RLIMIT_NOFILE", Soft: 1024, Hard: 524288}

// setRlimits writes the user's limits over the default ones.
func setRlimits(b *Bundle, in Input) error {
	limits := []specs.POSIXRlimit{defaultNofile}
	for _, u := range in.Config.Ulimits {
		l, err := rlimit(u)
		if err != nil {
			return err
		}
		limits = slices.DeleteFunc(limits, func(have specs.POSIXRlimit) bool { return have.Type == l.Type })
		limits = append(limits, l)
	}
	b.Spec.Process.Rlimits = limits
	return nil
}

func rlimit(u Ulimit) (specs.POSIXRlimit, error) {
	name := strings.ToLower(u.Name)
	if !slices.Contains(ulimits, name) {
		return specs.POSIXRlimit{}, invalid("--ulimit", u.Name, "there is no such limit", "one of "+strings.Join(ulimits, ", "))
	}
	if u.Soft < -1 || u.Hard < -1 {
		return specs.POSIXRlimit{}, invalid("--ulimit", u.Name, "a limit is negative", "-1 means unlimited")
	}
	l := specs.POSIXRlimit{Type: "RLIMIT_" + strings.ToUpper(name), Soft: uint64(u.Soft), Hard: uint64(u.Hard)} // -1 becomes RLIM_INFINITY
	if l.Soft > l.Hard {
		return l, invalid("--ulimit", u.Name, fmt.Sprintf("the soft limit %s is above the hard limit %s", limitText(l.Soft), limitText(l.Hard)),
			"write "+name+"=SOFT:HARD")
	}
	return l, nil
}

func limitText(l uint64) string {
	if l == math.MaxUint64 {
		return "unlimited"
	}
	return fmt.Sprint(l)
}
