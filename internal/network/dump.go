// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"errors"

	"github.com/vishvananda/netlink"
)

// maxDumps is how often a list is asked for that others change while the kernel tells it.
const maxDumps = 20

// dump lists what the kernel tells over netlink, again when others changed some of it meanwhile: what
// was told then may lack entries (NLM_F_DUMP_INTR, Documentation/userspace-api/netlink/intro.rst).
func dump[T any](list func() ([]T, error)) (all []T, err error) {
	for range maxDumps {
		if all, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return all, err
}
