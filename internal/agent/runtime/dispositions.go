// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// heedSignals gives SIGHUP, SIGINT and SIGQUIT their default effect where this process was
// started with them ignored (under nohup, say): execve would hand that on, and a
// container's processes would not end with their terminal. Handlers of Go's need no undoing: execve does.
func heedSignals() {
	for _, s := range []syscall.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT} {
		var action [4]uintptr // struct kernel_sigaction: handler, flags, restorer, mask; all zero is SIG_DFL
		_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(s), uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0)
	}
}
