// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// left tells what this daemon has on a host once the kernel is through: devices and namespaces.
// It waits until that is what is wanted.
func (n *namespace) left(h *Host, want ...string) string {
	n.t.Helper()
	var left string
	waitFor(func() bool {
		left = n.leftNow(h)
		return left == strings.Join(want, "\n")
	})
	return left
}

func (n *namespace) leftNow(h *Host) string {
	n.t.Helper()
	var left []string
	for line := range strings.Lines(n.run("ip -o link show")) {
		if strings.Contains(line, ": mp") {
			left = append(left, strings.Fields(line)[1])
		}
	}
	entries, err := os.ReadDir(h.path(""))
	if err != nil && !os.IsNotExist(err) {
		n.t.Fatal(err)
	}
	for _, e := range entries {
		left = append(left, "namespace "+e.Name())
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		n.t.Fatal(err)
	}
	if strings.Contains(string(mounts), h.RunDir) {
		left = append(left, "a mount in "+h.RunDir)
	}
	return strings.Join(left, "\n")
}

func TestFiftySlotsAtOnceDifferInEverything(t *testing.T) {
	t.Parallel()
	host := newNamespace(t, "host")
	h := host.open(func(c *Config) { c.Spare = 8 })
	n := h.network(t, NetworkRequest{ID: "n1", Name: "one"})
	slots := make([]*Slot, 50)
	errs := make([]error, len(slots))
	var all sync.WaitGroup
	for i := range slots {
		all.Go(func() {
			slots[i], errs[i] = h.TakeSlot(t.Context(), SlotRequest{Interfaces: []InterfaceRequest{{Network: n.ID}}})
		})
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, s := range slots {
		i := s.Interfaces[0]
		for _, x := range []string{s.ID, s.NetNS, i.MAC.String(), i.Addrs[0].String(), i.Addrs[1].String()} {
			if seen[x] {
				t.Errorf("two slots have %s", x)
			}
			seen[x] = true
		}
	}
	boot(t, slots[0]).run("ping -n -c 1 -W 2 " + boot(t, slots[49]).v4())
	for _, s := range slots {
		all.Go(func() {
			if err := h.ReleaseSlot(s.ID); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if err := errors.Join(h.DeleteNetwork(n.ID), h.pool.close()); err != nil {
		t.Fatal(err)
	}
	if left := host.left(h); left != "" {
		t.Errorf("left behind:\n%s", left)
	}
}

// Slots come and go by the hundred, half of them through the pool; nothing piles up.
func TestFiveHundredSlotsLeaveNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	t.Parallel()
	host := newNamespace(t, "host")
	h := host.open(func(c *Config) { c.Spare = 4 })
	n := h.network(t, NetworkRequest{ID: "n1", Name: "one"})
	descriptors := openFiles(t)
	const workers, each = 10, 50
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			for range each {
				s, err := h.TakeSlot(t.Context(), SlotRequest{Interfaces: []InterfaceRequest{{Network: n.ID}}})
				if err == nil {
					err = h.ReleaseSlot(s.ID)
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	if err := errors.Join(h.DeleteNetwork(n.ID), h.pool.close()); err != nil {
		t.Fatal(err)
	}
	if left := host.left(h); left != "" {
		t.Errorf("left behind:\n%s", left)
	}
	// Other tests open files too; five hundred slots would show all the same.
	if now := openFiles(t); now > descriptors+200 {
		t.Errorf("%d descriptors are open, %d were before", now, descriptors)
	}
	if rules := host.run("nft list set inet " + h.tableName() + " bridges"); strings.Contains(rules, "elements") {
		t.Errorf("the table still has\n%s", rules)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestSlotsAreReusedClean(t *testing.T) {
	t.Parallel()
	host := newNamespace(t, "host")
	h := host.open(func(c *Config) { c.Spare, c.NICs = 1, 2 })
	one := h.network(t, NetworkRequest{ID: "n1", Name: "one", MTU: 1400})
	two := h.network(t, NetworkRequest{ID: "n2", Name: "two"})
	limits := Limits{Up: 1e6, Down: 1e6, PacketsUp: 10, PacketsDown: 10}
	s, err := h.TakeSlot(t.Context(), SlotRequest{UID: 4242, GID: 4242, Interfaces: []InterfaceRequest{{Network: one.ID, Limits: limits, AllowMetadata: true}}})
	if err != nil {
		t.Fatal(err)
	}
	fresh := emptied(h)
	rules := func(path string) string {
		out, err := (&namespace{t, "slot", path}).try("nft list ruleset")
		if err != nil {
			t.Fatal(err, out)
		}
		return out
	}
	devices := func(path string) string {
		n := &namespace{t, "slot", path}
		return n.run("ip -o link show") + n.run("tc qdisc show")
	}
	virgin, virginDevices := rules(h.path(fresh.id)), devices(h.path(fresh.id))
	if s.NetNS == h.path(fresh.id) {
		t.Fatal("a slot was handed out twice")
	}
	if rules(s.NetNS) == virgin || !strings.Contains(devices(s.NetNS), "tbf") {
		t.Fatal("a slot that is in use looks like a spare one")
	}
	if err := h.removeSlot(fresh); err != nil {
		t.Fatal(err)
	}
	if err := h.ReleaseSlot(s.ID); err != nil {
		t.Fatal(err)
	}
	again := h.take(t, two) // the pool cleans before it makes
	for again.ID != s.ID {
		again = h.take(t, two)
		if t.Context().Err() != nil {
			t.Fatal("the slot that was released does not come back")
		}
	}
	if err := h.ReleaseSlot(again.ID); err != nil {
		t.Fatal(err)
	}
	if err := waitFor(func() bool { return isSpare(h, s.ID) || !isNamespace(s.NetNS) }); err != nil {
		t.Fatal(err)
	}
	if !isSpare(h, s.ID) {
		t.Skip("the pool was full; the slot went")
	}
	if got := rules(s.NetNS); got != virgin {
		t.Errorf("the guard of a reused slot:\n%s\nof a new one:\n%s", got, virgin)
	}
	// Addresses of devices differ in each slot.
	for _, want := range []string{"tap0: ", "mtu 1500", "noqueue"} {
		if got := devices(s.NetNS); strings.Count(got, want) != strings.Count(virginDevices, want) {
			t.Errorf("devices of a reused slot:\n%s\nof a new one:\n%s", got, virginDevices)
		}
	}
}

// emptied takes the spare slot out of the pool once it is there.
func emptied(h *Host) *slot {
	for {
		h.pool.mu.Lock()
		if n := len(h.pool.spare); n > 0 {
			s := h.pool.spare[n-1]
			h.pool.spare = h.pool.spare[:n-1]
			h.pool.mu.Unlock()
			return s
		}
		h.pool.mu.Unlock()
		time.Sleep(time.Millisecond)
	}
}

func isSpare(h *Host, id string) bool {
	h.pool.mu.Lock()
	defer h.pool.mu.Unlock()
	for _, s := range h.pool.spare {
		if s.id == id {
			return true
		}
	}
	return false
}

func waitFor(done func() bool) error {
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if done() {
			return nil
		}
	}
	return errors.New("it did not happen in 10 s")
}

func TestADaemonThatComesBackFindsWhatItKnowsAndSweepsTheRest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h := w.host.open(func(c *Config) { c.Spare = 2 })
	n, lost := h.network(t, NetworkRequest{ID: "n1", Name: "one"}), h.network(t, NetworkRequest{ID: "n2", Name: "two"})
	known, err := h.TakeSlot(t.Context(), SlotRequest{Interfaces: []InterfaceRequest{{Network: n.ID}}})
	if err != nil {
		t.Fatal(err)
	}
	stray, err := h.TakeSlot(t.Context(), SlotRequest{Interfaces: []InterfaceRequest{{Network: n.ID}}})
	if err != nil {
		t.Fatal(err)
	}
	m := boot(t, known)
	m.listen("tcp", ":80")
	known.Published = *h.publish(t, known, Port{HostPort: 8080, Port: 80, Protocol: "tcp"})
	strayPorts := h.publish(t, stray, Port{HostPort: 9090, Port: 80, Protocol: "tcp"})
	m.run("ping -n -c 1 -W 2 198.51.100.2")

	// The daemon is killed: nothing is closed. A record of a slot from before a reboot is there too.
	never := Slot{ID: "abcdefghi", NetNS: h.path("abcdefghi")}
	h2, gone := w.host.reopen([]Network{n}, []Slot{*known, never})
	if len(gone) != 1 || gone[0].ID != never.ID {
		t.Errorf("gone are %v, want the one that is not there", gone)
	}
	if got := w.far.ask("tcp", "192.0.2.1:8080"); got != "198.51.100.2" {
		t.Errorf("a published port after the restart: %q", got)
	}
	if got := w.host.ask("tcp", "[::1]:8080"); got != n.Subnets[1].Gateway.String() {
		t.Errorf("the same at ::1: %q", got)
	}
	m.run("ping -n -c 1 -W 2 198.51.100.2")
	if strayPorts.Proxy.alive() {
		t.Error("the proxy of a slot that nobody knows is alive")
	}
	if err := waitFor(func() bool { return !strings.Contains(w.host.leftNow(h2), stray.ID) }); err != nil {
		t.Error("the slot that nobody knows is still there")
	}
	left := w.host.leftNow(h2)
	for _, gone := range []string{lost.Bridge, stray.ID} {
		if strings.Contains(left, gone) {
			t.Errorf("%s is still there:\n%s", gone, left)
		}
	}
	if strings.Count(left, "namespace ") != 1 {
		t.Errorf("other slots than the known one are there:\n%s", left)
	}
	// Addresses are not handed out twice.
	if s := h2.take(t, n); s.Interfaces[0].Addrs[0] == known.Interfaces[0].Addrs[0] {
		t.Error("the address of an adopted slot was given to another")
	}
	// A proxy that died is replaced when the daemon comes back.
	if err := known.Published.Proxy.end(); err != nil {
		t.Fatal(err)
	}
	h3, _ := w.host.reopen([]Network{n}, []Slot{*known})
	now, _ := h3.Slot(known.ID)
	if now.Published.Proxy == known.Published.Proxy || w.host.ask("tcp", "[::1]:8080") != n.Subnets[1].Gateway.String() {
		t.Errorf("the proxy that died was not replaced: %v", now)
	}

	if err := h3.Prune(); err != nil {
		t.Fatal(err)
	}
	if left := w.host.left(h3); left != "" || now.Published.Proxy.alive() {
		t.Errorf("left after prune: %s", left)
	}
	if rules := w.host.run("nft list ruleset"); rules != "" {
		t.Errorf("rules left after prune:\n%s", rules)
	}
	for setting, want := range map[string]string{"ipv4/conf/all/forwarding": "0", "ipv6/conf/all/forwarding": "0", "ipv6/conf/up0/accept_ra": "1"} {
		var got string
		w.host.inside(func() (err error) { got, err = readSetting(setting); return err })
		if got != want {
			t.Errorf("%s is %q after prune, was %q before", setting, got, want)
		}
	}
}

func TestAFurtherNetworkIsJoinedAndLeft(t *testing.T) {
	t.Parallel()
	host := newNamespace(t, "host")
	h := host.open(func(c *Config) { c.NICs = 2 })
	one, two := h.network(t, NetworkRequest{ID: "n1", Name: "one"}), h.network(t, NetworkRequest{ID: "n2", Name: "two"})
	m, far := boot(t, h.take(t, one)), boot(t, h.take(t, two))
	far.listen("tcp", ":80")
	m.plug(1)
	i, err := h.Connect(t.Context(), m.slot.ID, InterfaceRequest{Network: two.ID, Limits: Limits{Up: 1e9}})
	if err != nil {
		t.Fatal(err)
	}
	i.Gateways = nil
	m.configure(*i)
	if got := m.ask("tcp", far.v4()+":80"); got != i.Addrs[0].Addr().String() {
		t.Errorf("a machine of the further network saw %q, want %v", got, i.Addrs[0].Addr())
	}
	for _, r := range []InterfaceRequest{{Network: two.ID}, {Network: "none"}} {
		if _, err := h.Connect(t.Context(), m.slot.ID, r); err == nil {
			t.Errorf("connecting to %s went well", r.Network)
		}
	}
	if err := h.Disconnect(m.slot.ID, 1); err != nil {
		t.Fatal(err)
	}
	if got := m.ask("tcp", far.v4()+":80"); addrOrNone(got) != (netip.Addr{}) {
		t.Errorf("after leaving, a machine of the further network saw %q", got)
	}
	if s, _ := h.Slot(m.slot.ID); len(s.Interfaces) != 1 {
		t.Errorf("the slot still has %v", s.Interfaces)
	}
}

// Each step of taking a slot fails once; nothing must be left of those before.
func TestASlotThatCannotBeTakenLeavesNothing(t *testing.T) {
	t.Parallel()
	host := newNamespace(t, "host")
	h := host.open(func(c *Config) { c.NICs = 2 })
	n := h.network(t, NetworkRequest{ID: "n1", Name: "one"})
	broken := h.network(t, NetworkRequest{ID: "n2", Name: "broken"})
	host.run("ip link del " + broken.Bridge)
	mine := addr(n.Subnets[0].Prefix.Addr().Next().Next().String())
	h.takeAs(t, SlotRequest{Interfaces: []InterfaceRequest{{Network: n.ID, Addrs: []netip.Addr{mine}, MAC: MAC{2, 0, 0, 0, 0, 9}}}})
	with := host.leftNow(h)
	for want, r := range map[string]SlotRequest{
		"no such network":           {Interfaces: []InterfaceRequest{{Network: n.ID}, {Network: "none"}}},
		"in use in network":         {Interfaces: []InterfaceRequest{{Network: n.ID, Addrs: []netip.Addr{mine}}}},
		"in no subnet":              {Interfaces: []InterfaceRequest{{Network: n.ID, Addrs: []netip.Addr{addr("203.0.113.1")}}}},
		"the gateway of":            {Interfaces: []InterfaceRequest{{Network: n.ID, Addrs: []netip.Addr{n.Subnets[0].Gateway}}}},
		"02:00:00:00:00:09: in use": {Interfaces: []InterfaceRequest{{Network: n.ID, MAC: MAC{2, 0, 0, 0, 0, 9}}}},
		"3 interfaces wanted":       {Interfaces: make([]InterfaceRequest, 3)},
		"user -5":                   {UID: -5},
		"plugging mpv":              {Interfaces: []InterfaceRequest{{Network: n.ID, AllowMetadata: true}, {Network: broken.ID}}},
	} {
		if s, err := h.TakeSlot(t.Context(), r); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("taking %+v: %v, %v; want an error with %q", r, s, err, want)
		}
		if left := host.left(h, with); left != with {
			t.Errorf("after %q, left are\n%s\nwant\n%s", want, left, with)
		}
	}
	if err := h.DeleteNetwork(n.ID); !errors.Is(err, ErrNetworkInUse) {
		t.Errorf("deleting a network in use: %v", err)
	}
	if len(h.networks[n.ID].macs) != 1 {
		t.Errorf("addresses of slots that were not taken are noted: %v", h.networks[n.ID].macs)
	}
}

func TestRatesAreLimited(t *testing.T) {
	t.Parallel()
	host := newNamespace(t, "host")
	h := host.open()
	n := h.network(t, NetworkRequest{ID: "n1", Name: "one"})
	const rate = 40e6 // bits per second
	m := boot(t, h.takeAs(t, SlotRequest{Interfaces: []InterfaceRequest{{Network: n.ID, Limits: Limits{Up: rate, Down: rate}}}}))
	slow := boot(t, h.takeAs(t, SlotRequest{Interfaces: []InterfaceRequest{{Network: n.ID, Limits: Limits{PacketsUp: 50}}}}))
	for _, direction := range []string{"", "-R"} {
		m.start("iperf3 -s -1")
		var out string
		err := waitFor(func() bool {
			var err error
			out, err = host.try(fmt.Sprintf("iperf3 -c %s -t 1 -f k %s", m.v4(), direction))
			return err == nil
		})
		if err != nil {
			t.Fatal(err, out)
		}
		if got := received(t, out); got > 1.4*rate || got < rate/4 {
			t.Errorf("iperf3 %s: %.1f Mbit/s, the limit is %.1f\n%s", direction, got/1e6, rate/1e6, out)
		}
	}
	out, _ := slow.try("ping -n -q -f -c 200 -W 1 " + n.Subnets[0].Gateway.String())
	if strings.Contains(out, " 0% packet loss") || !strings.Contains(out, "packet loss") {
		t.Errorf("200 packets at once got through a limit of 50 a second:\n%s", out)
	}
}

func TestConnectionsOfAReleasedAddressAreForgotten(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h := w.host.open()
	n := h.network(t, NetworkRequest{ID: "n1", Name: "one"})
	gone, stays := boot(t, h.take(t, n)), boot(t, h.take(t, n))
	w.far.listen("tcp", "198.51.100.2:80", "[2001:db8:2::2]:80")
	for _, m := range []*machine{gone, stays} {
		m.ask("tcp", "198.51.100.2:80")
		m.ask("tcp", "[2001:db8:2::2]:80")
	}
	flows := func(m *machine) (count int) {
		for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
			list, err := h.links.ConntrackTableList(netlink.ConntrackTable, family)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range list {
				if from := f.Forward.SrcIP.String(); from == m.v4() || from == m.v6() {
					count++
				}
			}
		}
		return count
	}
	if flows(gone) < 2 || flows(stays) < 2 {
		t.Fatalf("the host remembers %d and %d connections, want two of each at least", flows(gone), flows(stays))
	}
	if err := h.ReleaseSlot(gone.slot.ID); err != nil {
		t.Fatal(err)
	}
	if err := waitFor(func() bool { return flows(gone) == 0 }); err != nil {
		t.Errorf("%d connections of a machine that is gone are remembered", flows(gone))
	}
	if flows(stays) < 2 {
		t.Error("connections of another machine were forgotten too")
	}
}
