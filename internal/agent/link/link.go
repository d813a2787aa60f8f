// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Package link configures the guest's network devices, by routing netlink (rtnetlink(7))
// spoken directly: all of a device takes five system calls, since each that runs first
// after a restore costs in software emulation. Only the agent uses it.
//
// Prepare is called once, before a snapshot may be taken; Up and Down at any time
// after. They act on the network namespace of the calling process.
package link

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
)

// Config is one device and all that it is to have.
type Config struct {
	Index     int    // of ethN
	MAC       []byte // 6 bytes; empty: as it is
	MTU       int    // bytes; 0: as it is
	Addresses []netip.Prefix
	// Next hops of the default routes; the zero value: none by this device.
	Gateway4, Gateway6 netip.Addr
}

// Name is the device's.
func (c Config) Name() string { return fmt.Sprintf("eth%d", c.Index) }

// Up gives the device its hardware address, brings it up and adds addresses and default
// routes, in place of such routes by another device. It is idempotent.
func Up(c Config) error {
	return c.send(func(index int32) []message {
		list := []message{setLink(index, c)}
		for _, a := range c.Addresses {
			list = append(list, address(newAddress, index, a))
		}
		for _, gateway := range []netip.Addr{c.Gateway4, c.Gateway6} {
			if gateway.IsValid() {
				list = append(list, defaultRoute(index, gateway))
			}
		}
		return list
	})
}

// Down takes the addresses away, as far as they are there, and the device down, with which the
// kernel drops its routes.
func Down(c Config) error {
	return c.send(func(index int32) []message {
		var list []message
		for _, a := range c.Addresses {
			list = append(list, address(deleteAddress, index, a))
		}
		return append(list, takeDown(index))
	})
}

// send carries out the steps that are made for the device's index.
func (c Config) send(steps func(index int32) []message) error {
	s, err := open()
	if err != nil {
		return fmt.Errorf("%s: opening netlink: %w", c.Name(), err)
	}
	defer s.close()
	index, err := s.index(c.Name())
	if err != nil {
		return fmt.Errorf("%s: %w", c.Name(), err)
	}
	if err := s.send(steps(index)); err != nil {
		return fmt.Errorf("%s: %w", c.Name(), err)
	}
	return nil
}

// settings of the kernel that hold for a guest: the host gives addresses, which it keeps
// unique, so that nothing is to be asked for, found twice or waited for. Containers may listen on
// low ports and send echo requests as any user, as under Docker.
var settings = []struct{ pattern, value string }{
	{"net/ipv6/conf/*/accept_ra", "0"},
	{"net/ipv6/conf/*/dad_transmits", "0"},
	{"net/ipv6/conf/*/router_solicitations", "0"},
	{"net/ipv4/ip_unprivileged_port_start", "0"},
	{"net/ipv4/ping_group_range", "0 2147483647"},
}

// Prepare writes the settings below folder, /proc/sys in a guest. What this kernel does not
// have is left out.
func Prepare(folder string) error {
	for _, s := range settings {
		paths, err := filepath.Glob(filepath.Join(folder, s.pattern))
		if err != nil {
			return err
		}
		for _, path := range paths {
			if err := os.WriteFile(path, []byte(s.value), 0); err != nil {
				return err
			}
		}
	}
	return nil
}
