// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"fmt"
	"os"
	"runtime"
	"syscall"

	"github.com/elastic/go-seccomp-bpf"
	"golang.org/x/sys/unix"
)

// nobody is the user and group that converts when the parent is root.
const nobody = 65534

// confine takes from this process, all threads of it, what converting open files does not
// need. The order matters: each step needs what a later one takes.
func confine(limits Limits) error {
	if os.Geteuid() == 0 {
		if err := emptyRoot(); err != nil {
			return fmt.Errorf("leaving the file system: %w", err)
		}
	}
	if err := setRlimits(limits); err != nil {
		return err
	}
	if os.Geteuid() == 0 {
		if err := becomeNobody(); err != nil {
			return fmt.Errorf("changing to user %d: %w", nobody, err)
		}
	}
	return filterSyscalls()
}

// emptyRoot makes an empty read-only folder all there is, in the mount namespace that
// the parent made for this process.
func emptyRoot() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	const flags = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	// Any folder that every system has will do: what was below it is detached next.
	if err := unix.Mount("tmpfs", "/proc", "tmpfs", flags, "size=4k,nr_inodes=1"); err != nil {
		return err
	}
	if err := unix.Chdir("/proc"); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return err
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return err
	}
	return unix.Chdir("/")
}

func setRlimits(limits Limits) error {
	seconds := uint64(max(1, limits.Time.Seconds()))
	for _, r := range []struct {
		name  string
		which int
		value uint64
	}{
		{"memory", unix.RLIMIT_DATA, uint64(limits.Memory)},
		{"core", unix.RLIMIT_CORE, 0},
		// What the layers may hold, with every small file in a block of its own.
		{"file size", unix.RLIMIT_FSIZE, uint64(limits.Bytes) + 16<<30},
		{"processor time", unix.RLIMIT_CPU, seconds},
	} {
		if err := unix.Setrlimit(r.which, &unix.Rlimit{Cur: r.value, Max: r.value}); err != nil {
			return fmt.Errorf("limiting %s to %d: %w", r.name, r.value, err)
		}
	}
	return nil
}

// becomeNobody uses the system calls that Go applies to every thread.
func becomeNobody() error {
	if err := syscall.Setgroups(nil); err != nil {
		return err
	}
	if err := syscall.Setresgid(nobody, nobody, nobody); err != nil {
		return err
	}
	return syscall.Setresuid(nobody, nobody, nobody)
}

// allowedCalls is what Go's runtime and a conversion use; file descriptors can be used,
// not made (but received: filterSyscalls). Each name exists on every architecture.
var allowedCalls = []string{
	"read", "pread64", "write", "pwrite64", "lseek", "close", "fstat", "fcntl",
	"ftruncate", "fallocate", "fsync",
	"mmap", "munmap", "mremap", "mprotect", "madvise", "brk", "mincore",
	"clone", "clone3", "set_robust_list", "rseq", "sched_yield", "sched_getaffinity",
	"futex", "nanosleep", "clock_nanosleep", "clock_gettime", "gettimeofday", "restart_syscall",
	"rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack",
	"epoll_create1", "epoll_ctl", "epoll_pwait", "eventfd2", "pipe2",
	"getpid", "gettid", "getrandom", "exit", "exit_group",
}

// filterSyscalls lets this process do what allowedCalls says and sets no_new_privs, for
// all threads. Other calls fail with EPERM.
func filterSyscalls() error {
	runtime.LockOSThread() // no_new_privs is this thread's until the filter is everyone's
	defer runtime.UnlockOSThread()
	self := seccomp.Condition{Argument: 0, Operation: seccomp.Equal, Value: uint64(unix.Getpid())}
	layers := seccomp.Condition{Argument: 0, Operation: seccomp.Equal, Value: fdLayers}
	return seccomp.LoadFilter(seccomp.Filter{
		NoNewPrivs: true,
		Flag:       seccomp.FilterFlagTSync,
		Policy: seccomp.Policy{
			DefaultAction: seccomp.ActionErrno,
			Syscalls: []seccomp.SyscallGroup{{
				Action: seccomp.ActionAllow,
				Names:  allowedCalls,
				NamesWithCondtions: []seccomp.NameWithConditions{
					// The runtime interrupts its own threads.
					{Name: "tgkill", Conditions: seccomp.ArgumentConditions{self}},
					// Files come from the parent alone.
					{Name: "recvmsg", Conditions: seccomp.ArgumentConditions{layers}},
				},
			}},
		},
	})
}
