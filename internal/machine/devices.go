// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"github.com/micropod/micropod/internal/vmm"
)

// RateLimit bounds what flows through a device.
type RateLimit = vmm.RateLimit

// TokenBucket is a RateLimit's part.
type TokenBucket = vmm.TokenBucket

// Drive is a disk of the user's own, after the machine's: the first is /dev/vdc. It is not copied, and stays when the
// machine is deleted.
type Drive struct {
	ID       string // [a-zA-Z0-9_], unique in the machine
	Path     string // of a file or a block device
	ReadOnly bool
	Root     bool      // the guest runs this disk's init; at most one
	Limit    RateLimit // zero: Spec.DiskLimit
}

// NIC joins the guest to a TAP device of the user's own, in the daemon's network namespace.
type NIC struct {
	ID            string // as a Drive's
	TAP           string
	MAC           net.HardwareAddr // empty: chosen
	Receive, Send RateLimit        // what the guest gets and gives
}

// Bounds of what a user may add.
const (
	maxOwnDrives = 8
	maxOwnNICs   = 4
)

var deviceForm = regexp.MustCompile("^[a-zA-Z0-9_]{1,64}$")

// hasOwnDevices says whether the machine has what is not the daemon's: such a one is no other's likeness.
func (s Spec) hasOwnDevices() bool { return len(s.Drives)+len(s.NICs) > 0 }

// root is the guest's name of the disk whose init it runs, empty for none.
func (s Spec) root() string {
	i := slices.IndexFunc(s.Drives, func(d Drive) bool { return d.Root })
	if i < 0 {
		return ""
	}
	return deviceName(ScratchSlot + 1 + i)
}

// deviceName is the guest's name of the drive in a slot.
func deviceName(slot int) string { return "vd" + string(rune('a'+slot)) }

// checkDevices looks at what the user added. What an engine cannot do it says itself, at the start.
func checkDevices(s Spec) *SpecError {
	if err := limitError(s.DiskLimit.Check("disk rate limiter")); err != nil {
		return err
	}
	for field, path := range map[string]string{"log path": s.Log, "metrics path": s.Metrics} {
		if path == "" {
			continue
		}
		if info, err := os.Stat(filepath.Dir(path)); err != nil || !filepath.IsAbs(path) || !info.IsDir() {
			return &SpecError{field, fmt.Sprintf("%q is not an absolute path in a folder that is there", path), ""}
		}
	}
	if n := len(s.Drives); n > maxOwnDrives {
		return &SpecError{"block devices", fmt.Sprintf("%d are more than %d", n, maxOwnDrives), ""}
	}
	if n := len(s.NICs); n > maxOwnNICs {
		return &SpecError{"network interfaces", fmt.Sprintf("%d are more than %d", n, maxOwnNICs), ""}
	}
	seen := map[string]bool{}
	for i, d := range s.Drives {
		if err := checkDrive(d, seen); err != nil {
			return err
		}
		if d.Root && slices.ContainsFunc(s.Drives[:i], func(d Drive) bool { return d.Root }) {
			return &SpecError{"block devices", "more than one is the root device", ""}
		}
	}
	if len(s.NICs) > 0 && (len(s.Network.Joins)+len(s.Network.Ports) > 0) {
		return &SpecError{"network interfaces", "a machine with TAP devices of the user's own has neither networks nor published ports", "leave out networks and ports, or the interfaces"}
	}
	for i, n := range s.NICs {
		if err := checkNIC(n, seen, s.NICs[:i]); err != nil {
			return err
		}
	}
	return nil
}

func checkDrive(d Drive, seen map[string]bool) *SpecError {
	field := fmt.Sprintf("block device %q", d.ID)
	if err := checkDeviceID(field, d.ID, seen); err != nil {
		return err
	}
	if !filepath.IsAbs(d.Path) {
		return &SpecError{field, fmt.Sprintf("%q is not an absolute path", d.Path), ""}
	}
	info, err := os.Stat(d.Path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return &SpecError{field, "there is no " + d.Path, "make the disk first, such as with truncate and mkfs.ext4"}
	case err != nil:
		return &SpecError{field, err.Error(), ""}
	case !info.Mode().IsRegular() && info.Mode()&(os.ModeDevice|os.ModeCharDevice) != os.ModeDevice:
		return &SpecError{field, d.Path + " is neither a file nor a block device", ""}
	case info.Mode().IsRegular() && (info.Size() == 0 || info.Size()%512 != 0):
		return &SpecError{field, fmt.Sprintf("%s has %d bytes, which is no number of sectors of 512", d.Path, info.Size()), "enlarge it with truncate"}
	}
	return limitError(d.Limit.Check(field))
}

func checkNIC(n NIC, seen map[string]bool, before []NIC) *SpecError {
	field := fmt.Sprintf("network interface %q", n.ID)
	if err := checkDeviceID(field, n.ID, seen); err != nil {
		return err
	}
	if n.TAP == "" {
		return &SpecError{field, "it names no TAP device", "make one with: ip tuntap add NAME mode tap"}
	}
	if n.MAC != nil && (len(n.MAC) != 6 || n.MAC[0]&1 != 0) {
		return &SpecError{field, fmt.Sprintf("%v is no MAC address of one device", n.MAC), ""}
	}
	for _, b := range before {
		if b.TAP == n.TAP || n.MAC != nil && bytes.Equal(b.MAC, n.MAC) {
			return &SpecError{field, "it has the TAP or the MAC address of " + b.ID, ""}
		}
	}
	return limitError(errors.Join(n.Receive.Check(field), n.Send.Check(field)))
}

func checkDeviceID(field, id string, seen map[string]bool) *SpecError {
	if !deviceForm.MatchString(id) {
		return &SpecError{field, "its id is not made of 1 to 64 of a-z, A-Z, 0-9 and _", ""}
	}
	if seen[id] {
		return &SpecError{field, "another device has this id", ""}
	}
	seen[id] = true
	return nil
}

func limitError(err error) *SpecError {
	var wrong *vmm.ConfigError
	if !errors.As(err, &wrong) {
		return nil
	}
	return &SpecError{wrong.Field, wrong.Reason, ""}
}

// drives are those of a VMM's configuration: the machine's own, then the user's.
func (b *boot) drives() []vmm.Drive {
	drives := make([]vmm.Drive, ScratchSlot+1, ScratchSlot+1+len(b.spec.Drives))
	drives[ImageSlot].ReadOnly = true
	if b.blank {
		return drives
	}
	drives[ImageSlot].Path, drives[ScratchSlot].Path = b.spec.Image, b.diskPath()
	for _, d := range b.spec.Drives {
		drives = append(drives, vmm.Drive{Path: d.Path, ReadOnly: d.ReadOnly, Foreign: true})
	}
	for slot := range drives {
		drives[slot].Limit = b.spec.driveLimit(slot)
	}
	return drives
}

// driveLimit is what the drive in a slot is bounded by.
func (s Spec) driveLimit(slot int) RateLimit {
	if i := slot - ScratchSlot - 1; i >= 0 && !s.Drives[i].Limit.IsZero() {
		return s.Drives[i].Limit
	}
	return s.DiskLimit
}

// ownInterfaces gives the machine the user's TAPs in place of networks.
func (b *boot) ownInterfaces(c *vmm.Config) {
	c.NetNS, c.Interfaces = ownNetNS, make([]vmm.Interface, len(b.spec.NICs))
	for i, n := range b.spec.NICs {
		c.Interfaces[i] = vmm.Interface{TAP: n.TAP, MAC: n.MAC, Receive: n.Receive, Send: n.Send}
		if n.MAC == nil {
			c.Interfaces[i].MAC = chosenMAC(b.id, i)
		}
	}
}

// chosenMAC is a locally administered address that the machine has at each start.
func chosenMAC(id string, i int) net.HardwareAddr {
	sum := sumOf(id)
	return net.HardwareAddr{0x06, byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum), byte(i)}
}
