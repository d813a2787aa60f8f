// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"errors"
	"testing"

	"github.com/vishvananda/netlink"
)

func TestDumpsThatAreInterrupted(t *testing.T) {
	t.Parallel()
	other := errors.New("other")
	for name, c := range map[string]struct {
		interrupted int
		then        error
		calls       int
		want        error
	}{
		"never":   {0, nil, 1, nil},
		"twice":   {2, nil, 3, nil},
		"always":  {maxDumps, nil, maxDumps, netlink.ErrDumpInterrupted},
		"another": {1, other, 2, other},
	} {
		calls := 0
		_, err := dump(func() ([]int, error) {
			if calls++; calls <= c.interrupted {
				return nil, netlink.ErrDumpInterrupted
			}
			return []int{1}, c.then
		})
		if calls != c.calls || !errors.Is(err, c.want) {
			t.Errorf("%s: asked %d times, %v; want %d times, %v", name, calls, err, c.calls, c.want)
		}
	}
}
