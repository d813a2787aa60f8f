// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// ownNetworkVariable is set in the test process that is in a network namespace of its own.
const ownNetworkVariable = "MICROPOD_E2E_NETWORK"

// enterOwnNetwork starts the test process anew in network and mount namespaces of its own, with a way out to a small world
// (see worldSetup): daemons make bridges, rules and forwarding in what is their host, which this one must not be.
func enterOwnNetwork() error {
	if os.Getenv(ownNetworkVariable) != "" {
		return nil
	}
	if err := os.Setenv(ownNetworkVariable, "yes"); err != nil {
		return err
	}
	runtime.LockOSThread() // the new program begins in this thread's namespaces
	if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if out, err := exec.Command("sh", "-ec", worldSetup).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
	}
	return unix.Exec("/proc/self/exe", os.Args, os.Environ())
}

// worldSetup gives the namespace an interface up0 as a host has one, and behind a router, which gives IPv4 its own
// address on the way out, another host: 203.0.113.5 and 2001:db8:5::5, of the namespace "world".
const worldSetup = `
mkdir -p /run/netns
mount -t tmpfs netns /run/netns
ip link set lo up
ip netns add router
ip netns add world
ip link add up0 type veth peer name r0 netns router
ip -n router link add r1 type veth peer name w0 netns world
ip addr add 192.0.2.2/24 dev up0
ip addr add 2001:db8:2::2/64 dev up0 nodad
ip link set up0 up
ip route add default via 192.0.2.1
ip -6 route add default via 2001:db8:2::1
ip netns exec router nft add table ip nat
ip netns exec router nft 'add chain ip nat out { type nat hook postrouting priority 100; }'
ip netns exec router nft add rule ip nat out oifname r1 masquerade
ip netns exec router sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
ip -n router addr add 192.0.2.1/24 dev r0
ip -n router addr add 2001:db8:2::1/64 dev r0 nodad
ip -n router addr add 203.0.113.1/24 dev r1
ip -n router addr add 2001:db8:5::1/64 dev r1 nodad
for link in lo r0 r1; do ip -n router link set $link up; done
ip -n world addr add 203.0.113.5/24 dev w0
ip -n world addr add 2001:db8:5::5/64 dev w0 nodad
for link in lo w0; do ip -n world link set $link up; done
ip -n world route add default via 203.0.113.1
ip -n world -6 route add default via 2001:db8:5::1
`
