// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package vmmtest

import (
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/micropod/micropod/internal/vmm"
)

// testDriveOrder: Drives[i] is /dev/vd('a'+i), read-only ones and empty slots included.
func testDriveOrder(ctx context.Context, t *testing.T, s *suite) {
	const n = 12
	var drives []vmm.Drive
	for i := range n {
		if i == 4 {
			drives = append(drives, vmm.Drive{})
			continue
		}
		path := disk(t, int64(i+1)<<20, fmt.Sprintf("drive %02d", i))
		drives = append(drives, vmm.Drive{Path: path, ReadOnly: i%3 == 0})
	}
	m := s.start(ctx, t, func(c *vmm.Config) { c.Drives = drives })
	found := strings.Fields(m.ask(ctx, t, "drives"))
	if len(found) != n {
		t.Fatalf("the guest has drives %v, want %d", found, n)
	}
	for i, d := range drives {
		name := fmt.Sprintf("vd%c", 'a'+i)
		if d.Path == "" {
			continue
		}
		if want := fmt.Sprintf("%s:%d", name, (i+1)<<20); found[i] != want {
			t.Errorf("drive %d is %s, want %s", i, found[i], want)
		}
		wantBytes(ctx, t, m, name, fmt.Sprintf("drive %02d", i))
	}
	if _, err := m.guest.ask(ctx, "write vda no"); err == nil {
		t.Error("the guest wrote to a read-only drive")
	}
	m.ask(ctx, t, "write vdb yes")
	if b, err := os.ReadFile(drives[1].Path); err != nil || !strings.HasPrefix(string(b), "yes") {
		t.Errorf("the file behind vdb begins with %.8q (%v), want what the guest wrote", b, err)
	}
}

// testSetDrive: what lies behind a slot changes under a running and under a paused machine.
func testSetDrive(ctx context.Context, t *testing.T, s *suite) {
	first, second, scratch := disk(t, 2<<20, "first"), disk(t, 2<<20, "second"), disk(t, 4<<20, "scratch")
	m := s.start(ctx, t, func(c *vmm.Config) {
		c.Drives = []vmm.Drive{{Path: first, ReadOnly: true}, {ReadOnly: true}, {}}
	})
	set := func(slot int, d vmm.Drive) {
		t.Helper()
		if err := m.SetDrive(ctx, slot, d); err != nil {
			t.Fatalf("setting drive %d: %v", slot, err)
		}
	}
	wantBytes(ctx, t, m, "vda", "first")
	set(0, vmm.Drive{Path: second, ReadOnly: true})
	set(1, vmm.Drive{Path: first, ReadOnly: true})
	wantBytes(ctx, t, m, "vda", "second")
	wantBytes(ctx, t, m, "vdb", "first")
	if err := m.Pause(ctx); err != nil {
		t.Fatal(err)
	}
	set(2, vmm.Drive{Path: scratch})
	if err := m.Resume(ctx); err != nil {
		t.Fatal(err)
	}
	wantBytes(ctx, t, m, "vdc", "scratch")
	m.ask(ctx, t, "write vdc WRITTEN")
	if b, err := os.ReadFile(scratch); err != nil || !strings.HasPrefix(string(b), "WRITTEN") {
		t.Errorf("the file set behind vdc begins with %.8q (%v), want what the guest wrote", b, err)
	}
	if !s.FixedDriveSize {
		if found := m.ask(ctx, t, "drives"); !strings.Contains(found, fmt.Sprintf("vdc:%d", 4<<20)) {
			t.Errorf("the guest sees drives %s, want vdc with 4 MiB", found)
		}
	}
	set(2, vmm.Drive{})
	set(2, vmm.Drive{Path: scratch}) // free again for others, and for us
	for name, err := range map[string]error{
		"no such slot":      m.SetDrive(ctx, 3, vmm.Drive{}),
		"negative slot":     m.SetDrive(ctx, -1, vmm.Drive{}),
		"missing file":      m.SetDrive(ctx, 2, vmm.Drive{Path: scratch + "-missing"}),
		"other access mode": m.SetDrive(ctx, 0, vmm.Drive{Path: first}),
	} {
		if err == nil {
			t.Errorf("%s: SetDrive succeeded", name)
		}
	}
	wantBytes(ctx, t, m, "vda", "second")
	wantBytes(ctx, t, m, "vdc", "WRITTEN")
}

func wantBytes(ctx context.Context, t *testing.T, m *machine, name, want string) {
	t.Helper()
	got, err := hex.DecodeString(m.ask(ctx, t, "read %s %d", name, len(want)))
	if err != nil || string(got) != want {
		t.Errorf("%s begins with %q (%v), want %q", name, got, err, want)
	}
}
