// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package container_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/micropod/micropod/internal/container"
)

// A container's egress rules are its machine's, may change at any time, and are its copies' too.
func TestSetEgress(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := config("sleep")
	c.Network.Egress = []string{"deny", "allow=a.b"}
	i := w.create(c)
	rules := func() []string {
		m, err := w.machines.Get(i.MachineID)
		if err != nil {
			t.Fatal(err)
		}
		return m.Network.Egress
	}
	if got := rules(); !slices.Equal(got, c.Network.Egress) {
		t.Errorf("the machine has %q", got)
	}
	next := []string{"deny"}
	changed, err := w.SetEgress(w.soon(), i.ID, next)
	if err != nil || !slices.Equal(changed.Config.Network.Egress, next) || !slices.Equal(rules(), next) {
		t.Errorf("changed to %q, the machine's to %q, %v", changed.Config.Network.Egress, rules(), err)
	}
	if _, err := w.SetEgress(w.soon(), "none", nil); !errors.As(err, new(*container.NotFoundError)) {
		t.Errorf("of no container: %v", err)
	}
}
