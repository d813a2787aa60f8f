// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/micropod/micropod/internal/vmm"
)

const (
	mib = 1 << 20

	// microvm with acpi=on has 24 virtio-mmio buses (hw/i386/microvm.c), and a guest finds
	// the devices on them from the highest number down, because the ACPI table lists
	// the buses in that order. Drives must be found in ascending order, so they go down
	// from firstDriveBus. Bus 0 is left empty: the guest gets no interrupt from a
	// device there (seen with QEMU 7.2 and kernel 6.1, which hung in the partition scan).
	serialBus     = 23
	rngBus        = 22
	balloonBus    = 21
	firstDriveBus = 20
	maxDrives     = 16
	// Interfaces go down from firstNICBus, the same way, to bus 1.
	firstNICBus   = firstDriveBus - maxDrives
	maxInterfaces = firstNICBus

	// tcgCacheMiB bounds QEMU's memory for translated code. Its default of 1 GiB counts
	// against the machine's memory limit.
	tcgCacheMiB = 256

	// emptySlotBytes is the size of a drive with nothing behind it. The guest learns a
	// drive's size at boot only (see SetDrive), so it is larger than any image.
	emptySlotBytes = 1 << 40

	portName = "micropod" // of the virtio-serial port
)

// launch is what one QEMU process is started with.
type launch struct {
	config   vmm.Config
	accel    Accel
	incoming bool // waits for the device state of a snapshot

	// Numbers of inherited descriptors.
	memory, kernel, initrd, console, qmp, guest int
	// drives has a number for each of config.Drives, or 0 for an empty slot.
	drives []int
	taps   []int // a number for each of config.Interfaces
}

func (l *launch) args() []string {
	c := l.config
	share := "on"
	if l.incoming {
		share = "off"
	}
	memory := c.Memory / mib
	args := []string{
		"-name", c.ID,
		"-M", "microvm,acpi=on,rtc=on,pit=on,pic=on,isa-serial=on,auto-kernel-cmdline=off,dump-guest-core=off,suppress-vmdesc=on,memory-backend=memory",
		"-accel", l.accelArg(),
		"-cpu", l.cpu(),
		"-smp", fmt.Sprintf("cpus=%d,maxcpus=%d", c.VCPUs, c.VCPUs),
		"-m", fmt.Sprintf("%dM", memory),
		"-object", fmt.Sprintf("memory-backend-file,id=memory,mem-path=/proc/self/fd/%d,size=%dM,share=%s", l.memory, memory, share),
		"-nodefaults", "-no-user-config", "-nographic",
		// Stopped until the console is bounded and the cgroup joined. A guest that ends
		// leaves QEMU paused, so that its console and the reason can still be had, also by a
		// daemon that was not there when it happened.
		"-S", "-action", "reboot=shutdown,shutdown=pause",
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
		"-chardev", fmt.Sprintf("socket,id=qmp,fd=%d,server=on,wait=off", l.qmp),
		"-mon", "chardev=qmp,mode=control",
		"-device", bus("virtio-serial-device", serialBus),
		"-chardev", fmt.Sprintf("socket,id=guest,fd=%d,server=on,wait=off", l.guest),
		"-device", "virtserialport,chardev=guest,name=" + portName,
		"-object", "rng-random,id=rng,filename=/dev/urandom",
		"-device", bus("virtio-rng-device,rng=rng", rngBus),
		"-device", bus("virtio-balloon-device,id=balloon,free-page-reporting=on,deflate-on-oom=on", balloonBus),
	}
	if !l.incoming { // a restored guest has long read them, and QEMU takes 10 ms to
		args = append(args,
			"-kernel", fmt.Sprintf("/proc/self/fd/%d", l.kernel),
			"-initrd", fmt.Sprintf("/proc/self/fd/%d", l.initrd),
			"-append", l.commandLine())
	}
	args = append(args, l.consoleArgs()...)
	for i := range c.Drives {
		args = append(args, l.driveArgs(i)...)
	}
	for i := range c.Interfaces {
		args = append(args, l.interfaceArgs(i)...)
	}
	if l.incoming {
		// xen-save-devices-state, which wrote the state, leaves out the configuration section.
		args = append(args, "-incoming", "defer", "-global", "migration.send-configuration=off")
	}
	return args
}

func bus(device string, n int) string {
	return fmt.Sprintf("%s,bus=virtio-mmio-bus.%d", device, n)
}

func (l *launch) accelArg() string {
	if l.accel == AccelKVM {
		return "kvm"
	}
	return fmt.Sprintf("tcg,thread=multi,tb-size=%d", tcgCacheMiB)
}

func (l *launch) cpu() string {
	switch {
	case l.accel == AccelKVM && l.config.Nested:
		return "host,migratable=off"
	case l.accel == AccelKVM:
		return "host,vmx=off,svm=off"
	case l.config.Nested:
		// TCG emulates AMD's virtualisation, not Intel's.
		return "EPYC,+svm,+npt"
	default:
		// Five-level page tables make every page walk of the emulation longer. With erms
		// kernel and programs copy by "rep movsb", which is emulated byte by byte: a
		// container's output came at 15 MB/s with it, at 43 without.
		return "max,svm=off,la57=off,erms=off"
	}
}

// commandLine begins with what the engine relies on itself: the console, and that a
// crash resets the machine, which -action reboot=shutdown turns into its end.
func (l *launch) commandLine() string {
	own := "console=ttyS0 reboot=t panic=-1"
	if l.accel == AccelTCG {
		own += " mitigations=off" // an emulated CPU does not speculate
	}
	return strings.TrimSpace(own + " " + l.config.Args)
}

// consoleArgs: a null device whose log is the console. Errors of the log are
// ignored (chardev/char.c: qemu_chr_write_log), where those of a file device are
// tried again for each byte, and a full pipe would block the guest.
func (l *launch) consoleArgs() []string {
	return []string{
		"-add-fd", fmt.Sprintf("fd=%d,set=%d", l.console, l.console),
		"-chardev", fmt.Sprintf("null,id=console,logfile=/dev/fdset/%d,logappend=off", l.console),
		"-serial", "chardev:console",
	}
}

func (l *launch) driveArgs(i int) []string {
	var args []string
	fd := l.drives[i]
	if fd != 0 {
		args = append(args, "-add-fd", fmt.Sprintf("fd=%d,set=%d", fd, fd))
	}
	node := newNode(fmt.Sprintf("drive%d-boot", i), fd, l.config.Drives[i].ReadOnly)
	b, err := json.Marshal(node)
	if err != nil {
		panic(err) // strings, numbers and booleans only
	}
	return append(args,
		"-blockdev", string(b),
		// By default QEMU stops the machine when the host's disk is full (docs/system/invocation:
		// werror=enospc); here the guest gets the error, as from any disk.
		"-device", bus(fmt.Sprintf("virtio-blk-device,id=%s,drive=%s,werror=report,rerror=report", driveID(i), node.Name), firstDriveBus-i))
}

// interfaceArgs leaves offloads as QEMU finds them: on, for a TAP with a header for them.
// The MTU is the agent's to set: host_mtu would bound it for every clone of a snapshot.
// There is no control queue: without it the guest has no filters to hand over, for each of which it would wait
// for QEMU whenever it brings an interface up, and QEMU takes every frame. Who may send what is the slot's to say.
func (l *launch) interfaceArgs(i int) []string {
	return []string{
		"-netdev", fmt.Sprintf("tap,id=net%d,fd=%d,vhost=off", i, l.taps[i]),
		"-device", bus(fmt.Sprintf("virtio-net-device,id=nic%d,netdev=net%d,mac=%s,%s", i, i, l.config.Interfaces[i].MAC, noControlQueue), firstNICBus-i),
	}
}

// noControlQueue names the queue's features too: the guest's driver refuses a device that offers one without the queue.
const noControlQueue = "ctrl_vq=off,ctrl_rx=off,ctrl_rx_extra=off,ctrl_vlan=off,ctrl_mac_addr=off,ctrl_guest_offloads=off,guest_announce=off"

// driveID is the QOM id of the device in a slot.
func driveID(slot int) string { return fmt.Sprintf("drive%d", slot) }

// node is a block device's back end (QEMU's qapi/block-core.json, BlockdevOptions).
type node struct {
	Driver   string `json:"driver"`
	Name     string `json:"node-name"`
	ReadOnly bool   `json:"read-only"`
	// Of driver raw.
	File    *fileNode `json:"file,omitempty"`
	Discard string    `json:"discard,omitempty"`
	// Of driver null-co.
	Size       int64 `json:"size,omitempty"`
	ReadZeroes bool  `json:"read-zeroes,omitempty"`
}

type fileNode struct {
	Driver   string `json:"driver"`
	Filename string `json:"filename"`
	ReadOnly bool   `json:"read-only"`
	Discard  string `json:"discard"` // "unmap": what the guest trims becomes a hole in the file
}

// newNode describes the fdset's file as a raw disk, or for set 0 a disk of zeroes.
func newNode(name string, set int, readOnly bool) node {
	n := node{Name: name, ReadOnly: readOnly}
	if set == 0 {
		n.Driver, n.Size, n.ReadZeroes = "null-co", emptySlotBytes, true
		return n
	}
	n.Driver, n.Discard = "raw", "unmap"
	n.File = &fileNode{Driver: "file", Filename: fmt.Sprintf("/dev/fdset/%d", set), ReadOnly: readOnly, Discard: "unmap"}
	return n
}
