// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/micropod/micropod/internal/vmm"
)

func perSecond(n int64) TokenBucket { return TokenBucket{Size: n, Refill: time.Second} }

// ownDisk makes a file that can be a drive.
func ownDisk(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestOwnDevicesReachTheEngine(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	disk := RateLimit{Bandwidth: perSecond(1000)}
	own := RateLimit{Ops: perSecond(5)}
	first, second := ownDisk(t), ownDisk(t)
	i := w.start(Spec{
		DiskLimit: disk,
		Drives:    []Drive{{ID: "a", Path: first, Limit: own}, {ID: "b", Path: second, ReadOnly: true}},
		NICs:      []NIC{{ID: "n", TAP: "tap0", Send: own}, {ID: "m", TAP: "tap1", MAC: net.HardwareAddr{2, 0, 0, 0, 0, 9}}},
		Log:       filepath.Join(t.TempDir(), "vmm.log"),
	})
	c := w.host.VMM(i.PID).Config()
	want := []vmm.Drive{{ReadOnly: true, Limit: disk}, {Path: c.Drives[1].Path, Limit: disk}, {Path: first, Limit: own, Foreign: true}, {Path: second, ReadOnly: true, Limit: disk, Foreign: true}}
	if len(c.Drives) != len(want) {
		t.Fatalf("drives: %+v", c.Drives)
	}
	for slot := range want {
		if c.Drives[slot] != want[slot] {
			t.Errorf("drive %d is %+v, want %+v", slot, c.Drives[slot], want[slot])
		}
	}
	if len(c.Interfaces) != 2 || c.Interfaces[0].TAP != "tap0" || len(c.Interfaces[0].MAC) != 6 || c.Interfaces[0].Send != own || c.Interfaces[1].MAC.String() != "02:00:00:00:00:09" {
		t.Errorf("interfaces: %+v", c.Interfaces)
	}
	if c.Log != i.Log || i.Files.Socket == "" || i.Files.Log == "" {
		t.Errorf("log %q, files %+v", c.Log, i.Files)
	}
	// Changed at once, and at the next start.
	faster := perSecond(2000)
	if err := w.Limit(t.Context(), i.ID, LimitChange{Bandwidth: &faster}, map[string]LimitChange{"a": {Ops: &TokenBucket{}}}); err != nil {
		t.Fatal(err)
	}
	for slot := range 4 {
		if got := w.host.VMM(i.PID).Limit(slot); got.Bandwidth != faster || got.Ops.Size != 0 {
			t.Errorf("drive %d is limited by %+v", slot, got)
		}
	}
	w.restart()
	if got := w.get(i.ID); got.DiskLimit.Bandwidth != faster || !got.Drives[0].Limit.IsZero() {
		t.Errorf("after a restart of the daemon: %+v", got.Spec)
	}
}

func TestLimitTakesBackWhatFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	i := w.start(Spec{})
	calls := 0
	w.host.SetTrouble(func(step string) error {
		if step != "limit drive" {
			return nil
		}
		if calls++; calls == 2 {
			return errors.New("no")
		}
		return nil
	})
	b := perSecond(7)
	if err := w.Limit(t.Context(), i.ID, LimitChange{Ops: &b}, nil); err == nil || !strings.Contains(err.Error(), "vdb") {
		t.Errorf("limiting the second drive: %v", err)
	}
	if l := w.host.VMM(i.PID).Limit(0); !l.IsZero() || !w.get(i.ID).DiskLimit.IsZero() {
		t.Errorf("left are %+v, %+v", l, w.get(i.ID).DiskLimit)
	}
	var wrong *SpecError
	if err := w.Limit(t.Context(), i.ID, LimitChange{}, map[string]LimitChange{"x": {}}); !errors.As(err, &wrong) {
		t.Errorf("a drive that is not there: %v", err)
	}
}

func TestWrongDevices(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	good := ownDisk(t)
	odd := filepath.Join(t.TempDir(), "odd")
	if err := os.WriteFile(odd, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	many := make([]Drive, maxOwnDrives+1)
	for name, s := range map[string]Spec{
		"no such":     {Drives: []Drive{{ID: "a", Path: "/no/such"}}},
		"a folder":    {Drives: []Drive{{ID: "a", Path: "/"}}},
		"a device":    {Drives: []Drive{{ID: "a", Path: "/dev/null"}}},
		"relative":    {Drives: []Drive{{ID: "a", Path: "disk"}}},
		"odd size":    {Drives: []Drive{{ID: "a", Path: odd}}},
		"no id":       {Drives: []Drive{{Path: good}}},
		"bad id":      {Drives: []Drive{{ID: "../x", Path: good}}},
		"twice":       {Drives: []Drive{{ID: "a", Path: good}, {ID: "a", Path: good}}},
		"two roots":   {Drives: []Drive{{ID: "a", Path: good, Root: true}, {ID: "b", Path: good, Root: true}}},
		"too many":    {Drives: many},
		"bad limit":   {Drives: []Drive{{ID: "a", Path: good, Limit: RateLimit{Ops: TokenBucket{Size: -1}}}}},
		"bad default": {DiskLimit: RateLimit{Ops: TokenBucket{Size: 1, Refill: time.Microsecond}}},
		"no TAP":      {NICs: []NIC{{ID: "a"}}},
		"one TAP":     {NICs: []NIC{{ID: "a", TAP: "t"}, {ID: "b", TAP: "t"}}},
		"group MAC":   {NICs: []NIC{{ID: "a", TAP: "t", MAC: net.HardwareAddr{1, 0, 0, 0, 0, 0}}}},
		"many NICs":   {NICs: make([]NIC, maxOwnNICs+1)},
		"NIC and net": {NICs: []NIC{{ID: "a", TAP: "t"}}, Network: NetworkSpec{Joins: []Join{{Network: "x"}}}},
		"log":         {Log: "here"},
		"metrics":     {Metrics: "/no/such/folder/file"},
	} {
		var wrong *SpecError
		if _, err := w.Create(t.Context(), s); !errors.As(err, &wrong) {
			t.Errorf("%s: %v, want a *SpecError", name, err)
		}
	}
}

func TestMachinesWithOwnDevicesAreNotSaved(t *testing.T) {
	t.Parallel()
	path := ownDisk(t)
	for name, s := range map[string]Spec{
		"a writable disk": {Drives: []Drive{{ID: "a", Path: path}}},
		"a TAP":           {NICs: []NIC{{ID: "n", TAP: "tap0"}}},
	} {
		var wrong *SpecError
		if err := s.mayBeSaved(); !errors.As(err, &wrong) {
			t.Errorf("%s: %v", name, err)
		}
		if s.usual() {
			t.Errorf("%s: a template would serve it", name)
		}
	}
	if err := (Spec{Drives: []Drive{{ID: "a", Path: path, ReadOnly: true}}}).mayBeSaved(); err != nil {
		t.Errorf("a read-only disk: %v", err)
	}
	for name, s := range map[string]Spec{
		"a read-only disk": {Drives: []Drive{{ID: "a", Path: path, ReadOnly: true}}}, "a kernel": {Kernel: path},
	} {
		var wrong *SpecError
		if err := s.mayBeRestored(true); err != nil {
			t.Errorf("%s of a snapshot made here: %v", name, err)
		}
		if err := s.mayBeRestored(false); !errors.As(err, &wrong) {
			t.Errorf("%s of an imported snapshot: %v", name, err)
		}
	}
	if got := (Spec{Drives: []Drive{{ID: "a"}, {ID: "b", Root: true}}}).root(); got != "vdd" {
		t.Errorf("the root is %q, want vdd", got)
	}
}
