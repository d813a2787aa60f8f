// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/agent/inroot"
)

// ptmxDevice is the number of every devpts's ptmx (Documentation/admin-guide/devices.txt).
var ptmxDevice = unix.Mkdev(5, 2)

// terminal is a pseudo-terminal in a container's devpts. Both are descriptors.
type terminal struct{ master, slave int }

// openTerminal allocates a terminal in the devpts of the root. The container may have
// put anything at /dev/pts/ptmx, so what was opened is looked at before it is used;
// the slave is opened through the master, not by name.
func openTerminal(r inroot.Root, p *processPlan) (terminal, error) {
	master, err := r.Open("/dev/pts/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK)
	if err != nil {
		return terminal{}, fmt.Errorf("allocating a terminal in the container's /dev/pts: %w", err)
	}
	t, err := unlockTerminal(master)
	if err != nil {
		unix.Close(master)
		return terminal{}, err
	}
	if p.Rows != 0 || p.Cols != 0 {
		size := unix.Winsize{Row: uint16(p.Rows), Col: uint16(p.Cols)}
		if err := unix.IoctlSetWinsize(t.slave, unix.TIOCSWINSZ, &size); err != nil {
			return terminal{}, fmt.Errorf("setting the terminal's size: %w", err)
		}
	}
	return t, nil
}

func unlockTerminal(master int) (terminal, error) {
	var st unix.Stat_t
	if err := unix.Fstat(master, &st); err != nil {
		return terminal{}, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != ptmxDevice {
		return terminal{}, fmt.Errorf("the container's /dev/pts/ptmx is not a terminal multiplexer")
	}
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return terminal{}, fmt.Errorf("unlocking the terminal: %w", err)
	}
	slave, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return terminal{}, fmt.Errorf("opening the terminal: %w", errno)
	}
	return terminal{master: master, slave: int(slave)}, nil
}

// bindConsole puts the terminal at the root's /dev/console.
func (t terminal) bindConsole(r inroot.Root) error {
	mount, err := cloneMount(t.slave, false)
	if err != nil {
		return fmt.Errorf("binding the terminal to /dev/console: %w", err)
	}
	defer unix.Close(mount)
	target, err := r.File("/dev/console")
	if err != nil {
		return fmt.Errorf("making /dev/console: %w", err)
	}
	defer unix.Close(target)
	if err := attach(mount, target); err != nil {
		return fmt.Errorf("binding the terminal to /dev/console: %w", err)
	}
	return nil
}

// control makes the terminal that of this process's session, which setsid has just made.
func (t terminal) control() error {
	if err := unix.IoctlSetInt(t.slave, unix.TIOCSCTTY, 0); err != nil {
		return fmt.Errorf("taking the terminal as controlling terminal: %w", err)
	}
	return nil
}
