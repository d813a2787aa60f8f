// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"testing"

	"github.com/micropod/micropod/internal/network/mmds"
	"github.com/micropod/micropod/internal/network/portproxy"
)

// inOwn says in the environment that this process is the one in namespaces of its own.
const inOwn = "MICROPOD_NETWORK_TEST_NAMESPACES"

// TestMain runs the tests in mount and network namespaces of their own, so that nothing
// touches the host's; they need root.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == portproxy.Verb {
		fmt.Fprintln(os.Stderr, portproxy.Main(context.Background(), os.Args[2:]))
		os.Exit(1)
	}
	if len(os.Args) > 1 && os.Args[1] == mmds.Verb {
		fmt.Fprintln(os.Stderr, mmds.Main(context.Background(), os.Args[2:]))
		os.Exit(1)
	}
	flag.Parse()
	if os.Getenv(inOwn) != "" || os.Geteuid() != 0 {
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), inOwn+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	signal.Ignore(os.Interrupt) // the other gets it too
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
