// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"github.com/google/nftables"
	nl "github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/undo"
)

// defaultMTU is that of slots' interfaces until a network's is another (bytes).
const defaultMTU = 1500

// slotsDir is where in RunDir slots have their names; nothing else is there.
const slotsDir = "slots"

// slot is a Slot as the host has it.
type slot struct {
	id     string
	ns     *os.File
	guards *nftables.Conn // an open socket inside
	ports  []int          // indexes of the host's ends, one for each TAP
	mtus   []int
	fresh  bool // nobody's, by the pool or just made: its guard has no egress rules
}

// slotID names a new slot. It is in the names of its devices.
func slotID() string { return hash(rand.Text(), 9) }

// path is where a slot's namespace has its name.
func (h *Host) path(slot string) string { return filepath.Join(h.RunDir, slotsDir, slot) }

// portName is the host's end of a slot's interface: 13 bytes.
func portName(slot string, index int) string { return fmt.Sprintf("mpv%s%d", slot, index) }

// makeSlot makes a slot that belongs to nobody: its guards let nothing pass, its ends
// are on no bridge.
func (h *Host) makeSlot() (_ *slot, err error) {
	s := &slot{id: slotID(), fresh: true}
	var steps undo.Stack
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("making a network slot: %w", err), steps.Run(context.Background()))
		}
	}()
	if err := makeNamespace(h.path(s.id)); err != nil {
		return nil, err
	}
	steps.Add("removing the namespace", func(context.Context) error { return h.removeSlot(s) })
	if s.ns, err = os.Open(h.path(s.id)); err != nil {
		return nil, err
	}
	inside, err := netlink.NewHandleAt(netns.NsHandle(s.ns.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	defer inside.Close()
	taps, ethers, err := h.makeEnds(s, inside)
	if err != nil {
		return nil, err
	}
	if err := makeGuards(s.ns, taps, ethers); err != nil {
		return nil, err
	}
	return s, s.openGuards()
}

// guardBuffer is the size of the socket's buffers to nftables (bytes); they take memory as they fill.
const guardBuffer = 8 << 20

func (s *slot) openGuards() (err error) {
	// Rules and kept connections of a machine go in one message and are answered one by one: the kernel's usual 208 KiB are too few.
	buffers := func(c *nl.Conn) error {
		return errors.Join(c.SetReadBuffer(guardBuffer), c.SetWriteBuffer(guardBuffer))
	}
	s.guards, err = nftables.New(nftables.WithNetNSFd(int(s.ns.Fd())), nftables.AsLasting(), nftables.WithSockOptions(buffers))
	return err
}

// makeEnds makes TAPs and Ethernet pairs and notes the pairs' outer ends in s. It
// returns the indexes of what is inside.
func (h *Host) makeEnds(s *slot, inside *netlink.Handle) (taps, ethers []int, err error) {
	err = within(s.ns, func() error {
		for i := range h.NICs {
			if err := keepTAP(tapName(i)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	for i := range h.NICs {
		outer, err := h.makePair(s, i)
		if err != nil {
			return nil, nil, err
		}
		s.ports, s.mtus = append(s.ports, outer), append(s.mtus, defaultMTU)
		for name, list := range map[string]*[]int{tapName(i): &taps, ethName(i): &ethers} {
			l, err := inside.LinkByName(name)
			if err != nil {
				return nil, nil, fmt.Errorf("finding %s: %w", name, err)
			}
			if err := inside.LinkSetUp(l); err != nil {
				return nil, nil, fmt.Errorf("setting %s up: %w", name, err)
			}
			*list = append(*list, l.Attrs().Index)
		}
	}
	return taps, ethers, nil
}

// makePair makes one pair with an end in each namespace; the outer one stays down.
func (h *Host) makePair(s *slot, index int) (outer int, err error) {
	name := portName(s.id, index)
	pair := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: name, MTU: defaultMTU},
		PeerName:  ethName(index), PeerMTU: defaultMTU, PeerNamespace: netlink.NsFd(s.ns.Fd()),
	}
	if err := h.links.LinkAdd(pair); err != nil {
		return 0, fmt.Errorf("adding %s: %w", name, err)
	}
	l, err := h.links.LinkByName(name)
	if err != nil {
		return 0, err
	}
	if err := h.links.LinkSetAlias(l, h.owner("slot", s.id)); err != nil {
		return 0, fmt.Errorf("marking %s: %w", name, err)
	}
	return l.Attrs().Index, h.setting("ipv6/conf/"+name+"/disable_ipv6", "1")
}

// setting writes a file of /proc/sys/net as the host has it. A kernel without the file,
// one without IPv6 that is, is no error.
func (h *Host) setting(path, value string) error {
	return within(h.ns, func() error {
		err := os.WriteFile("/proc/sys/net/"+path, []byte(value), 0)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
}

// removeSlot removes all that makeSlot made, or a part of it. The devices go with the
// namespace, some time later: the kernel takes many down together much faster than one by one.
func (h *Host) removeSlot(s *slot) error {
	return errors.Join(s.close(), removeNamespace(h.path(s.id)))
}

// tearSlot removes a slot whose namespace somebody may still hold, with its outer ends.
func (h *Host) tearSlot(s *slot) error {
	var errs []error
	for i := range h.NICs {
		errs = append(errs, h.removeLink(portName(s.id, i)))
	}
	return errors.Join(append(errs, h.removeSlot(s))...)
}

func (h *Host) removeLink(name string) error {
	l, err := h.links.LinkByName(name)
	if err == nil {
		err = h.links.LinkDel(l)
	}
	if errors.As(err, new(netlink.LinkNotFoundError)) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("deleting %s: %w", name, err)
	}
	return nil
}

// device is a link known by its index alone.
func device(index int) netlink.Link {
	return &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}
}

// ParseMAC reads a 48-bit address that one interface can have: no group's, not zero.
func ParseMAC(text string) (MAC, error) {
	parsed, err := net.ParseMAC(text)
	switch {
	case err != nil || len(parsed) != len(MAC{}):
		return MAC{}, &AddressError{text, "not a MAC address of six bytes"}
	case parsed[0]&1 != 0:
		return MAC{}, &AddressError{text, "a MAC address of groups, not of one interface"}
	case MAC(parsed) == MAC{}:
		return MAC{}, &AddressError{text, "no interface can have this MAC address"}
	}
	return MAC(parsed), nil
}
