// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package seccomp

import "github.com/opencontainers/runtime-spec/specs-go"

// socketcalls and ipcs are the selectors of x86's two multiplexed system calls
// (linux/net.h, linux/ipc.h). A rule about one of these calls must hold on the
// second way to it as well, or a profile that forbids connect would not.
var (
	socketcalls = []string{
		1: "socket", 2: "bind", 3: "connect", 4: "listen", 5: "accept", 6: "getsockname", 7: "getpeername", 8: "socketpair",
		9: "send", 10: "recv", 11: "sendto", 12: "recvfrom", 13: "shutdown", 14: "setsockopt", 15: "getsockopt",
		16: "sendmsg", 17: "recvmsg", 18: "accept4", 19: "recvmmsg", 20: "sendmmsg",
	}
	ipcs = []string{
		1: "semop", 2: "semget", 3: "semctl", 4: "semtimedop", 11: "msgsnd", 12: "msgrcv", 13: "msgget", 14: "msgctl",
		21: "shmat", 22: "shmdt", 23: "shmget", 24: "shmctl",
	}
)

// multiplexed returns the call through which name can be reached too, and its selector in argument 0.
func multiplexed(arch specs.Arch, name string) (mux string, selector uint64, ok bool) {
	if arch != specs.ArchX86 || name == "" {
		return "", 0, false
	}
	for i, n := range socketcalls {
		if n == name {
			return "socketcall", uint64(i), true
		}
	}
	for i, n := range ipcs {
		if n == name {
			return "ipc", uint64(i), true
		}
	}
	return "", 0, false
}
