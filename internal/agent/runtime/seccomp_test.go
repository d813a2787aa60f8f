// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"encoding/base64"
	"encoding/binary"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// errnoFilter makes a filter by hand that answers one system call with an errno and allows all others.
func errnoFilter(call uint32, errno uint32) string {
	const (
		load  = 0x20 // A = seccomp_data[k]
		jumpE = 0x15 // if A == k, skip jt, else jf
		ret   = 0x06
		allow = 0x7fff0000
		fail  = 0x00050000
	)
	var b []byte
	for _, f := range []unix.SockFilter{{Code: load, K: 0}, {Code: jumpE, Jf: 1, K: call}, {Code: ret, K: fail | errno}, {Code: ret, K: allow}} {
		b = binary.LittleEndian.AppendUint16(b, f.Code)
		b = append(b, f.Jt, f.Jf)
		b = binary.LittleEndian.AppendUint32(b, f.K)
	}
	return base64.StdEncoding.EncodeToString(b)
}

func withSeccomp(filter string) func(*StartRequest) {
	return func(r *StartRequest) { r.Spec.Annotations = map[string]string{SeccompAnnotation: filter} }
}

func TestSeccomp(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	filter := errnoFilter(unix.SYS_MKDIR, uint32(unix.ENOTNAM))
	script := "mkdir /x; awk '/Seccomp:/{print $2}' /proc/self/status"
	for name, change := range map[string]func(*StartRequest){
		"root":                   func(*StartRequest) {},
		"user":                   func(r *StartRequest) { r.User = "app" },
		"no_new_privs":           func(r *StartRequest) { r.Spec.Process.NoNewPrivileges = true },
		"user with no_new_privs": func(r *StartRequest) { r.User = "app"; r.Spec.Process.NoNewPrivileges = true },
		"init":                   func(r *StartRequest) { r.Init = true },
		"no capabilities":        func(r *StartRequest) { r.Spec.Process.Capabilities = nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := shell(t, r, script, withSeccomp(filter), change)
			if !strings.Contains(got.err, "XENIX") || got.out != "2\n" { // "Not a XENIX named type file"
				t.Errorf("got %q, %q, want mkdir to fail by the filter", got.out, got.err)
			}
			caps := shell(t, r, "awk '/CapEff/{print $2}' /proc/self/status", withSeccomp(filter), change)
			if strings.HasSuffix(caps.out, "a82425fb\n") {
				t.Errorf("CAP_SYS_ADMIN, needed to install the filter, is left: %q", caps.out)
			}
		})
	}
	id, _, _ := running(t, r, "echo ready; sleep 1000", withSeccomp(filter))
	if got := execIn(t, r, id, ExecRequest{Process: process("mkdir", "/y")}); !strings.Contains(got.err, "XENIX") {
		t.Errorf("exec: got %+v, want the container's filter", got)
	}
}

// A filter that lets execve alone through must not be in the way of the start itself.
func TestSeccompThatForbidsTheExec(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	req := request(busybox(t), dockerSpec("true"))
	withSeccomp(errnoFilter(unix.SYS_EXECVE, uint32(unix.EPERM)))(&req)
	if _, err := tryRun(t, r, req); err == nil || !strings.Contains(err.Error(), "exec /bin/true: operation not permitted") {
		t.Errorf("got %v, want execve's own answer", err)
	}
}
