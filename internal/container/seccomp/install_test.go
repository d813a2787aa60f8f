// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// inChild makes the test binary install the filter in this variable and try system calls.
const inChild = "MICROPOD_TEST_SECCOMP_FILTER"

func TestMain(m *testing.M) {
	if filter := os.Getenv(inChild); filter != "" {
		fmt.Print(tryUnder(filter))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// tryUnder installs a filter on this thread and tells what some calls give.
func tryUnder(filter string) string {
	runtime.LockOSThread()
	raw, err := base64.StdEncoding.DecodeString(filter)
	if err != nil {
		return err.Error()
	}
	program := unix.SockFprog{Len: uint16(len(raw) / 8), Filter: (*unix.SockFilter)(unsafe.Pointer(&raw[0]))}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err.Error()
	}
	if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0); err != nil {
		return "installing: " + err.Error()
	}
	tried := []struct {
		name string
		do   func() error
	}{
		{"getpid", func() error { _, _, e := syscall.RawSyscall(unix.SYS_GETPID, 0, 0, 0); return errno(e) }},
		{"unshare", func() error { return unix.Unshare(unix.CLONE_NEWUTS) }},
		{"clone3", func() error { _, _, e := syscall.RawSyscall(unix.SYS_CLONE3, 0, 0, 0); return errno(e) }},
		{"future", func() error { _, _, e := syscall.RawSyscall(1999, 0, 0, 0); return errno(e) }},
		{"unix socket", func() error { return closed(unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)) }},
		{"vsock", func() error { return closed(unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0)) }},
		{"keyctl", func() error { _, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, false); return err }},
	}
	var s strings.Builder
	for _, t := range tried {
		fmt.Fprintf(&s, "%s: %v\n", t.name, t.do())
	}
	return s.String()
}

func errno(e syscall.Errno) error {
	if e == 0 {
		return nil
	}
	return e
}

func closed(fd int, err error) error {
	if err == nil {
		err = unix.Close(fd)
	}
	return err
}

// TestKernelObeysTheFilter installs the default filter in a child on this host.
func TestKernelObeysTheFilter(t *testing.T) {
	t.Parallel()
	filter, _, err := Compile("", defaultCaps, "")
	if err != nil {
		t.Fatal(err)
	}
	child := exec.CommandContext(t.Context(), "/proc/self/exe")
	child.Env = []string{inChild + "=" + filter, "GOCOVERDIR=" + t.TempDir()}
	out, err := child.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	want := "getpid: <nil>\n" +
		"unshare: operation not permitted\n" +
		"clone3: function not implemented\n" +
		"future: function not implemented\n" +
		"unix socket: <nil>\n" +
		"vsock: operation not permitted\n" +
		"keyctl: operation not permitted\n"
	if string(out) != want {
		t.Errorf("under the filter: %v\n%s\nwant\n%s", err, out, want)
	}
}
