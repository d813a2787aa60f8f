// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"errors"
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Credentials belong to a thread. Everything here changes the calling thread only, by
// raw system calls, never Go's own wrappers, which would change (and wait for) all
// threads: execve leaves none but the caller.

// becomeUser drops capabilities out of the bounding set and changes to the user. A
// user other than root acts without capabilities from here on, but can get those of the permitted set back.
func becomeUser(id identity, p *processPlan) error {
	if err := dropBounding(p.Caps.Bounding); err != nil {
		return err
	}
	return setIDs(id)
}

// restrict is the last step before execve: capabilities, no_new_privs, seccomp.
func restrict(p *processPlan) error {
	privileged := uint64(1) << unix.CAP_SYS_ADMIN
	caps := p.Caps
	if p.NoNewPrivs {
		if err := prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0); err != nil {
			return fmt.Errorf("setting no_new_privs: %w", err)
		}
		if err := setCaps(caps); err != nil {
			return err
		}
		return installSeccomp(p.Seccomp)
	}
	// Without no_new_privs the filter takes CAP_SYS_ADMIN to install, so that one goes after it.
	if len(p.Seccomp) > 0 {
		with := capsPlan{Effective: caps.Effective | privileged, Permitted: caps.Permitted | privileged, Inheritable: caps.Inheritable}
		if err := capset(with); err != nil {
			return err
		}
		if err := installSeccomp(p.Seccomp); err != nil {
			return err
		}
	}
	return setCaps(caps)
}

func setIDs(id identity) error {
	// Keep the permitted set over the change to another user: setCaps shrinks it to the plan's.
	if err := prctl(unix.PR_SET_KEEPCAPS, 1, 0); err != nil {
		return fmt.Errorf("keeping capabilities: %w", err)
	}
	var groups unsafe.Pointer
	if len(id.groups) > 0 {
		groups = unsafe.Pointer(&id.groups[0])
	}
	if err := raw(unix.SYS_SETGROUPS, uintptr(len(id.groups)), uintptr(groups), 0); err != nil {
		return fmt.Errorf("setting supplementary groups %v: %w", id.groups, err)
	}
	gid, uid := uintptr(id.gid), uintptr(id.uid)
	if err := raw(unix.SYS_SETRESGID, gid, gid, gid); err != nil {
		return fmt.Errorf("setting group %d: %w", gid, err)
	}
	if err := raw(unix.SYS_SETRESUID, uid, uid, uid); err != nil {
		return fmt.Errorf("setting user %d: %w", uid, err)
	}
	if err := prctl(unix.PR_SET_KEEPCAPS, 0, 0); err != nil {
		return fmt.Errorf("no longer keeping capabilities: %w", err)
	}
	return nil
}

// dropBounding takes what is not in keep out of the bounding set.
func dropBounding(keep uint64) error {
	for c := uintptr(0); c < 64; c++ {
		if keep&(1<<c) != 0 {
			continue
		}
		// EINVAL: the kernel knows no capability of this number, nor any above.
		if err := prctl(unix.PR_CAPBSET_DROP, c, 0); errors.Is(err, unix.EINVAL) {
			return nil
		} else if err != nil {
			return fmt.Errorf("dropping capability %d: %w", c, err)
		}
	}
	return nil
}

// setCaps sets effective, permitted, inheritable and ambient. What the thread does not have is not asked for.
func setCaps(p capsPlan) error {
	if err := capset(p); err != nil {
		return err
	}
	if err := prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0); err != nil {
		return fmt.Errorf("clearing ambient capabilities: %w", err)
	}
	for c := uintptr(0); c < 64; c++ {
		if p.Ambient&(1<<c) == 0 {
			continue
		}
		if err := prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, c); err != nil {
			return fmt.Errorf("raising ambient capability %d: %w", c, err)
		}
	}
	return nil
}

func capset(p capsPlan) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := raw(unix.SYS_CAPGET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data[0])), 0); err != nil {
		return fmt.Errorf("reading capabilities: %w", err)
	}
	for i := range data {
		shift, has := 32*i, data[i].Permitted
		data[i] = unix.CapUserData{
			Effective:   uint32(p.Effective>>shift) & has,
			Permitted:   uint32(p.Permitted>>shift) & has,
			Inheritable: uint32(p.Inheritable>>shift) & has,
		}
	}
	if err := raw(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data[0])), 0); err != nil {
		return fmt.Errorf("setting capabilities: %w", err)
	}
	return nil
}

// filterSize is that of a struct sock_filter (bytes).
const filterSize = 8

func installSeccomp(filter []byte) error {
	if len(filter) == 0 {
		return nil
	}
	program := unix.SockFprog{
		Len:    uint16(len(filter) / filterSize),
		Filter: (*unix.SockFilter)(unsafe.Pointer(&filter[0])),
	}
	if err := raw(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&program))); err != nil {
		return fmt.Errorf("installing the seccomp filter: %w", err)
	}
	return nil
}

func prctl(option int, arg2, arg3 uintptr) error {
	return raw(unix.SYS_PRCTL, uintptr(option), arg2, arg3)
}

// raw does a system call on this thread, without telling Go's scheduler.
//
//go:uintptrescapes
func raw(call, a, b, c uintptr) error {
	if _, _, errno := syscall.RawSyscall6(call, a, b, c, 0, 0, 0); errno != 0 {
		return errno
	}
	return nil
}
