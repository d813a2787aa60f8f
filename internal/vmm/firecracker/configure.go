// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package firecracker

import (
	"context"
	"fmt"
	"strings"

	"github.com/firecracker-microvm/firecracker-go-sdk/client/models"
	"github.com/firecracker-microvm/firecracker-go-sdk/client/operations"

	"github.com/micropod/micropod/internal/vmm"
)

const (
	mib = 1 << 20

	// guestCID is the vsock address of every guest: their vsocks do not meet.
	guestCID = 3
	// maxDevices is how many virtio-mmio devices x86 has interrupts for (Firecracker's docs/device-api.md and
	// arch/x86_64/layout.rs), three of which are the vsock, entropy and balloon devices.
	maxDevices = 17
	ownDevices = 3
	// maxVCPUs and the balloon's interval (seconds) are of Firecracker's swagger.
	maxVCPUs      = 32
	statsInterval = 1
)

// ptr is for the SDK's required fields.
func ptr[T any](v T) *T { return &v }

// configure makes the requests between a fresh Firecracker and its guest's start, in their order.
func (m *machine) configure(ctx context.Context) error {
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"machine configuration", m.putMachineConfig}, {"CPU configuration", m.putCPUConfig}, {"kernel", m.putBootSource}, {"drives", m.putDrives},
		{"interfaces", m.putInterfaces}, {"vsock", m.putVsock}, {"entropy", m.putEntropy}, {"balloon", m.putBalloon},
	} {
		m.stage(step.name)
		if err := step.do(ctx); err != nil {
			return err
		}
	}
	return nil
}

// machineConfig is PUT /machine-config with what came after the SDK's swagger.
type machineConfig struct {
	VCPUs           int   `json:"vcpu_count"`
	MemoryMiB       int64 `json:"mem_size_mib"`
	SMT             bool  `json:"smt"`
	TrackDirtyPages bool  `json:"track_dirty_pages"`
}

func (m *machine) putMachineConfig(ctx context.Context) error {
	c := m.record.Config
	return m.api.send(ctx, "PUT", "/machine-config", machineConfig{VCPUs: c.VCPUs, MemoryMiB: c.Memory / mib}, nil)
}

// cpuConfig is PUT /cpu-config (Firecracker's docs/cpu_templates/cpu-templates.md).
type cpuConfig struct {
	CPUID []cpuidModifier `json:"cpuid_modifiers"`
}

type cpuidModifier struct {
	Leaf      string             `json:"leaf"`
	Subleaf   string             `json:"subleaf"`
	Flags     int                `json:"flags"`
	Registers []registerModifier `json:"modifiers"`
}

type registerModifier struct {
	Register string `json:"register"`
	Bitmap   string `json:"bitmap"` // from bit 31 down; x leaves a bit
}

// withoutVirtualisation hides that the guest's CPU can virtualise, which KVM lets through and Firecracker does not
// support: VMX is bit 5 of ECX in leaf 1, SVM bit 2 of ECX in leaf 0x80000001.
var withoutVirtualisation = cpuConfig{[]cpuidModifier{
	{"0x1", "0x0", 0, []registerModifier{{"ecx", clearBit(5)}}},
	{"0x80000001", "0x0", 0, []registerModifier{{"ecx", clearBit(2)}}},
}}

func clearBit(n int) string { return "0b" + strings.Repeat("x", 31-n) + "0" + strings.Repeat("x", n) }

func (m *machine) putCPUConfig(ctx context.Context) error {
	return m.api.send(ctx, "PUT", "/cpu-config", withoutVirtualisation, nil)
}

// commandLine begins with what the engine relies on itself. It replaces Firecracker's default; pci=off
// and the devices are appended by Firecracker.
//
// x86 guests of Firecracker have no power-off: a reset by the keyboard controller (reboot=k) ends it, and a panic
// resets. The controller's other uses are not looked for, which takes 0.5 s.
func commandLine(args string) string {
	own := "console=ttyS0 reboot=k panic=-1 8250.nr_uarts=1 i8042.noaux i8042.nomux i8042.nopnp i8042.dumbkbd"
	return strings.TrimSpace(own + " " + args)
}

func (m *machine) putBootSource(ctx context.Context) error {
	p := operations.NewPutGuestBootSourceParamsWithContext(ctx).WithTimeout(0)
	p.SetBody(&models.BootSource{KernelImagePath: ptr(kernelName), InitrdPath: initrdName, BootArgs: commandLine(m.record.Config.Args)})
	_, err := m.api.PutGuestBootSource(p)
	return explainAPI("PUT /boot-source", err)
}

// driveID is Firecracker's name of a slot, and that of its file in the jail.
func driveID(slot int) string { return fmt.Sprintf("drive%d", slot) }

func (m *machine) putDrives(ctx context.Context) error {
	for i, d := range m.record.Config.Drives {
		p := operations.NewPutGuestDriveByIDParamsWithContext(ctx).WithTimeout(0)
		p.SetDriveID(driveID(i))
		p.SetBody(&models.Drive{
			DriveID: ptr(driveID(i)), PathOnHost: ptr(driveID(i)), IsReadOnly: ptr(d.ReadOnly),
			IsRootDevice: ptr(false), // the guest starts from its initramfs
			// What a guest flushes is on the host's disk.
			CacheType:   ptr(models.DriveCacheTypeWriteback),
			RateLimiter: limiter(d.Limit),
		})
		if _, err := m.api.PutGuestDriveByID(p); err != nil {
			return explainAPI("PUT /drives/"+driveID(i), err)
		}
	}
	return nil
}

func interfaceID(i int) string { return fmt.Sprintf("eth%d", i) }

func (m *machine) putInterfaces(ctx context.Context) error {
	for i, n := range m.record.Config.Interfaces {
		p := operations.NewPutGuestNetworkInterfaceByIDParamsWithContext(ctx).WithTimeout(0)
		p.SetIfaceID(interfaceID(i))
		p.SetBody(&models.NetworkInterface{
			IfaceID: ptr(interfaceID(i)), GuestMac: n.MAC.String(), HostDevName: ptr(tapName(i, n)),
			RxRateLimiter: limiter(n.Receive), TxRateLimiter: limiter(n.Send),
		})
		if _, err := m.api.PutGuestNetworkInterfaceByID(p); err != nil {
			return explainAPI("PUT /network-interfaces/"+interfaceID(i), err)
		}
	}
	return nil
}

func (m *machine) putVsock(ctx context.Context) error {
	p := operations.NewPutGuestVsockParamsWithContext(ctx).WithTimeout(0)
	p.SetBody(&models.Vsock{GuestCid: ptr(int64(guestCID)), UdsPath: ptr(vsockName)})
	_, err := m.api.PutGuestVsock(p)
	return explainAPI("PUT /vsock", err)
}

func (m *machine) putEntropy(ctx context.Context) error {
	p := operations.NewPutEntropyDeviceParamsWithContext(ctx).WithTimeout(0)
	p.SetBody(&models.EntropyDevice{})
	_, err := m.api.PutEntropyDevice(p)
	return explainAPI("PUT /entropy", err)
}

func (m *machine) putBalloon(ctx context.Context) error {
	p := operations.NewPutBalloonParamsWithContext(ctx).WithTimeout(0)
	p.SetBody(&models.Balloon{AmountMib: ptr(int64(0)), DeflateOnOom: ptr(true), StatsPollingIntervals: statsInterval})
	_, err := m.api.PutBalloon(p)
	return explainAPI("PUT /balloon", err)
}

// startGuest lets the guest begin; Firecracker checks KVM and reads the kernel here.
func (m *machine) startGuest(ctx context.Context) error {
	p := operations.NewCreateSyncActionParamsWithContext(ctx).WithTimeout(0)
	p.SetInfo(&models.InstanceActionInfo{ActionType: ptr(models.InstanceActionInfoActionTypeInstanceStart)})
	_, err := m.api.CreateSyncAction(p)
	return explainAPI("PUT /actions InstanceStart", err)
}

// check refuses what this engine cannot do.
func (e *Engine) check(c vmm.Config) error {
	if err := c.Check(); err != nil {
		return err
	}
	refuse := func(feature, reason string) error {
		return &vmm.UnsupportedError{Engine: Name, Feature: feature, Reason: reason}
	}
	switch n := len(c.Drives) + len(c.Interfaces); {
	case n > maxDevices-ownDevices:
		return refuse(fmt.Sprintf("%d drives and network interfaces", n), fmt.Sprintf("it has room for %d", maxDevices-ownDevices))
	case c.VCPUs > maxVCPUs:
		return refuse(fmt.Sprintf("%d vCPUs", c.VCPUs), fmt.Sprintf("it has at most %d", maxVCPUs))
	case c.Nested:
		return refuse("nested virtualisation", "its CPU templates and snapshots leave it out; run the machine with --engine qemu")
	case len(c.Interfaces) > 0 && e.jailer == "" && anySpare(c):
		return refuse("spare network interfaces without a jail", "they need a TAP that only root can make")
	}
	return nil
}
