// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"fmt"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// machine is what stands in for a VM: a namespace with a network card, eth0, whose frames
// are carried to and from the slot's TAP with their virtio-net headers, as a VMM does.
type machine struct {
	*namespace
	slot *Slot
	tap  *os.File // the slot's: what is written to it the machine sent
	mac  MAC
}

// boot starts a machine on the first interface of a slot, configured as told.
func boot(t *testing.T, s *Slot) *machine {
	t.Helper()
	i := s.Interfaces[0]
	m := &machine{namespace: newNamespace(t, "guest-"+s.ID), slot: s, mac: i.MAC}
	m.plug(0)
	m.configure(i)
	return m
}

// plug carries frames between a card and a TAP until the test ends.
func (m *machine) plug(index int) {
	t := m.t
	t.Helper()
	outer, err := m.slot.OpenTAP(index)
	if err != nil {
		t.Fatal(err)
	}
	var card *os.File
	if err := m.inside(func() (err error) { card, err = openTAP(ethName(index)); return err }); err != nil {
		t.Fatal(err)
	}
	if index == 0 {
		m.tap = outer
	}
	for _, f := range []*os.File{outer, card} {
		offload(t, f)
	}
	var copies sync.WaitGroup
	copies.Go(func() { carry(card, outer) })
	copies.Go(func() { carry(outer, card) })
	t.Cleanup(func() {
		outer.Close()
		card.Close()
		copies.Wait()
	})
}

// offload says that the other side takes whole segments and unfinished checksums, as a
// guest's driver does.
func offload(t *testing.T, f *os.File) {
	t.Helper()
	raw, err := f.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err2 := raw.Control(func(fd uintptr) {
		err = unix.IoctlSetInt(int(fd), unix.TUNSETOFFLOAD, unix.TUN_F_CSUM|unix.TUN_F_TSO4|unix.TUN_F_TSO6|unix.TUN_F_TSO_ECN)
	})
	if err != nil || err2 != nil {
		t.Fatal(err, err2)
	}
}

func carry(from, to *os.File) {
	frame := make([]byte, 10+65536+64)
	for {
		n, err := from.Read(frame)
		if err != nil {
			return
		}
		to.Write(frame[:n]) // a link that is down drops what it gets
	}
}

func (m *machine) configure(i Interface) {
	m.t.Helper()
	dev := ethName(i.Index)
	m.run(fmt.Sprintf("ip link set %s address %s mtu %d up", dev, i.MAC, i.MTU))
	for _, a := range i.Addrs {
		m.run(fmt.Sprintf("ip addr add %s dev %s nodad", a, dev)) // usable at once
	}
	for _, g := range i.Gateways {
		m.run(fmt.Sprintf("ip route add default via %s dev %s", g, dev))
	}
}

// v4 and v6 are the machine's addresses on its first interface.
func (m *machine) v4() string { return m.slot.Interfaces[0].Addrs[0].Addr().String() }
func (m *machine) v6() string { return m.slot.Interfaces[0].Addrs[1].Addr().String() }
