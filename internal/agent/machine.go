// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/agent/link"
	"github.com/micropod/micropod/internal/agent/reap"
)

// Machine is what the agent does to the machine as a whole. In a guest it is kernel.
type Machine interface {
	// AddEntropy mixes seed into the kernel's generator, counts it, and makes the generator start anew from it.
	AddEntropy(seed []byte) error
	SetClock(time.Time) error
	SetHostname(string) error
	SetMachineID(string) error
	// SetLink configures a network device and brings it up, or takes it down.
	SetLink(c link.Config, up bool) error
	// TellClone sends the event that tells processes that they go on in another machine.
	TellClone() error
	// StartInit starts the init of a disk, such as vdc, with all the machine's rights.
	StartInit(device string) (Init, error)
	// Sync returns when all file systems' data is on their disks.
	Sync()
	// PowerOff ends the machine at once. It returns only errors.
	PowerOff() error
}

// kernel is the machine that the agent runs in.
type kernel struct{ reaper *reap.Reaper }

// AddEntropy implements Machine (random(4), RNDADDENTROPY and RNDRESEEDCRNG).
func (kernel) AddEntropy(seed []byte) error {
	f, err := os.OpenFile("/dev/urandom", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	// struct rand_pool_info: the bits it is worth, its size, the bytes.
	info := binary.NativeEndian.AppendUint32(nil, uint32(8*len(seed)))
	info = binary.NativeEndian.AppendUint32(info, uint32(len(seed)))
	info = append(info, seed...)
	if err := ioctl(f, unix.RNDADDENTROPY, uintptr(unsafe.Pointer(&info[0]))); err != nil {
		return fmt.Errorf("adding entropy: %w", err)
	}
	if err := ioctl(f, unix.RNDRESEEDCRNG, 0); err != nil {
		return fmt.Errorf("reseeding: %w", err)
	}
	return nil
}

func ioctl(f *os.File, request uint, argument uintptr) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), uintptr(request), argument); errno != 0 {
		return errno
	}
	return nil
}

// SetClock implements Machine.
func (kernel) SetClock(t time.Time) error {
	ts := unix.NsecToTimespec(t.UnixNano())
	return unix.ClockSettime(unix.CLOCK_REALTIME, &ts)
}

// SetHostname implements Machine.
func (kernel) SetHostname(name string) error { return unix.Sethostname([]byte(name)) }

// SetMachineID implements Machine (machine-id(5)).
func (kernel) SetMachineID(id string) error {
	return os.WriteFile("/etc/machine-id", []byte(id+"\n"), 0o444)
}

// SetLink implements Machine.
func (kernel) SetLink(c link.Config, up bool) error {
	if up {
		return link.Up(c)
	}
	return link.Down(c)
}

// randomEvents is where events of /dev/urandom are asked for (Documentation/ABI/testing/sysfs-uevent).
const randomEvents = "/sys/class/mem/urandom/uevent"

// TellClone implements Machine. Who listens for the kernel's events (netlink(7),
// NETLINK_KOBJECT_UEVENT) needs no privilege, and hears SYNTH_ARG_CLONED=1.
func (kernel) TellClone() error {
	id, err := os.ReadFile("/proc/sys/kernel/random/uuid")
	if err != nil {
		return err
	}
	return os.WriteFile(randomEvents, fmt.Appendf(nil, "change %s CLONED=1", bytes.TrimSpace(id)), 0)
}

// Sync implements Machine.
func (kernel) Sync() { unix.Sync() }

// PowerOff implements Machine.
func (kernel) PowerOff() error {
	how := unix.LINUX_REBOOT_CMD_POWER_OFF
	if line, err := os.ReadFile("/proc/cmdline"); err == nil && restartEnds(string(line)) {
		how = unix.LINUX_REBOOT_CMD_RESTART
	}
	return unix.Reboot(how)
}

// restartEnds tells from the kernel's command line whether this machine ends by a
// restart: an engine says how it can be restarted when it cannot be powered off,
// and the kernel would only halt.
func restartEnds(commandLine string) bool {
	for _, arg := range strings.Fields(commandLine) {
		if strings.HasPrefix(arg, "reboot=") {
			return true
		}
	}
	return false
}

// kernelRelease and bootID read once what does not change while the kernel runs.
var (
	kernelRelease = sync.OnceValue(func() string {
		var name unix.Utsname
		_ = unix.Uname(&name) // cannot fail with a good pointer
		return unix.ByteSliceToString(name.Release[:])
	})
	bootID = sync.OnceValue(func() string {
		id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
		return string(bytes.TrimSpace(id))
	})
)
