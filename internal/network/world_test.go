// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/micropod/micropod/internal/network/mmds"
	"github.com/micropod/micropod/internal/network/portproxy"
)

// namespace is a network namespace of a test's: a host, a router, a machine's inside.
type namespace struct {
	t    *testing.T
	name string
	path string
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("making network namespaces needs root")
	}
}

func newNamespace(t *testing.T, name string) *namespace {
	t.Helper()
	needRoot(t)
	n := &namespace{t, name, filepath.Join(t.TempDir(), name)}
	if err := makeNamespace(n.path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := removeNamespace(n.path); err != nil {
			t.Error(err)
		}
	})
	n.set("ipv4/conf/all/forwarding", "0") // it is as in the namespace that this host began in
	n.set("ipv6/conf/default/disable_ipv6", "0")
	n.set("ipv6/conf/all/disable_ipv6", "0")
	n.set("ipv6/conf/default/accept_dad", "0")
	n.run("ip link set lo up")
	return n
}

// run runs a command of words separated by spaces inside, which must go well.
func (n *namespace) run(command string) string {
	n.t.Helper()
	out, err := n.try(command)
	if err != nil {
		n.t.Fatalf("in %s: %s: %v\n%s", n.name, command, err, out)
	}
	return out
}

func (n *namespace) try(command string) (string, error) {
	n.t.Helper()
	var out bytes.Buffer
	err := n.inside(func() error {
		words := strings.Fields(command)
		cmd := exec.CommandContext(n.t.Context(), words[0], words[1:]...)
		cmd.Stdout, cmd.Stderr = &out, &out
		return cmd.Run()
	})
	return out.String(), err
}

// inside runs f on a thread in the namespace.
func (n *namespace) inside(f func() error) error {
	ns, err := os.Open(n.path)
	if err != nil {
		return err
	}
	defer ns.Close()
	return within(ns, f)
}

func (n *namespace) set(setting, value string) {
	n.t.Helper()
	if err := n.inside(func() error { return os.WriteFile("/proc/sys/net/"+setting, []byte(value), 0) }); err != nil {
		n.t.Fatal(err)
	}
}

// pair joins two namespaces by a pair of devices with these addresses.
func pair(a *namespace, aDev string, aAddrs []string, b *namespace, bDev string, bAddrs []string) {
	a.t.Helper()
	a.run(fmt.Sprintf("ip link add %s type veth peer name tmp%s", aDev, bDev))
	a.run(fmt.Sprintf("nsenter --net=/proc/self/ns/net ip link set tmp%s netns %s", bDev, b.path))
	b.run(fmt.Sprintf("ip link set tmp%s name %s up", bDev, bDev))
	a.run(fmt.Sprintf("ip link set %s up", aDev))
	for _, x := range aAddrs {
		a.run(fmt.Sprintf("ip addr add %s dev %s", x, aDev))
	}
	for _, x := range bAddrs {
		b.run(fmt.Sprintf("ip addr add %s dev %s", x, bDev))
	}
}

// open opens the networking of a host, closed with the test.
func (n *namespace) open(change ...func(*Config)) *Host {
	n.t.Helper()
	h, gone := n.reopen(nil, nil, change...)
	if len(gone) > 0 {
		n.t.Fatalf("a new host misses slots: %v", gone)
	}
	return h
}

func (n *namespace) reopen(networks []Network, slots []Slot, change ...func(*Config)) (*Host, []Slot) {
	n.t.Helper()
	c := Config{
		Instance: n.path, RunDir: filepath.Join(filepath.Dir(n.path), "run"), NetNS: n.path,
		Proxy: []string{"/proc/self/exe", portproxy.Verb}, Metadata: []string{"/proc/self/exe", mmds.Verb},
		Log: slog.New(slog.NewTextHandler(n.t.Output(), nil)),
	}
	for _, f := range change {
		f(&c)
	}
	h, gone, err := Open(c, networks, slots)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		if err := h.Close(); err != nil {
			n.t.Error(err)
		}
	})
	return h, gone
}

// network makes a network, deleted with the test.
func (h *Host) network(t *testing.T, r NetworkRequest) Network {
	t.Helper()
	n, err := h.CreateNetwork(r)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// take takes a slot on the networks, released with the test.
func (h *Host) take(t *testing.T, networks ...Network) *Slot {
	t.Helper()
	r := SlotRequest{UID: 12345, GID: 12345}
	for _, n := range networks {
		r.Interfaces = append(r.Interfaces, InterfaceRequest{Network: n.ID})
	}
	return h.takeAs(t, r)
}

func (h *Host) takeAs(t *testing.T, r SlotRequest) *Slot {
	t.Helper()
	s, err := h.TakeSlot(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.ReleaseSlot(s.ID); err != nil {
			t.Error(err)
		}
	})
	return s
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }
