// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/network/mmds"
	"github.com/micropod/micropod/internal/undo"
)

// Metadata is a slot's metadata service: a process that answers the machine, on its first interface.
type Metadata struct{ Server Process }

// metadataDir is where in RunDir documents are, by slot. Only root reads them; servers have theirs open.
const metadataDir = "metadata"

// metadataAddr is where guests find the service.
var metadataAddr = netip.MustParseAddr(mmds.Address)

const (
	metadataPort = 80
	arpTarget    = 24 // offset of the address that is asked for (RFC 826)
)

// metadataMark is the comment of the guard's rules for the service.
var metadataMark = []byte("metadata")

func (h *Host) metadataPath(slotID string) string {
	return filepath.Join(h.RunDir, metadataDir, slotID)
}

// ServeMetadata gives a slot's machine a metadata service with this document, which mmds.Parse gave. The caller puts the result into
// the Slot that it has on record, since the server outlives the daemon. On error nothing is left. Errors: ErrNoSlot.
func (h *Host) ServeMetadata(ctx context.Context, slotID string, document []byte) (_ *Metadata, err error) {
	h.mu.Lock()
	s := h.slots[slotID]
	h.mu.Unlock()
	switch {
	case s == nil:
		return nil, fmt.Errorf("slot %s: %w", slotID, ErrNoSlot)
	case len(s.Interfaces) == 0 || !s.Interfaces[0].addr(true).IsValid():
		return nil, errors.New("a machine without an IPv4 address cannot ask for metadata")
	}
	var steps undo.Stack
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("serving metadata: %w", err), steps.Run(ctx))
		}
	}()
	made, err := h.find(s)
	if err != nil {
		return nil, err
	}
	defer made.close()
	steps.Add("closing the metadata service", func(context.Context) error { return h.withSlot(s, (*slot).closeMetadata) })
	if err := made.openMetadata(s.Interfaces[0]); err != nil {
		return nil, err
	}
	steps.Add("removing the document", func(context.Context) error { return h.forgetDocument(slotID) })
	if err := h.SetMetadata(slotID, document); err != nil {
		return nil, err
	}
	m := &Metadata{}
	if m.Server, err = h.startMetadata(slotID, made); err != nil {
		return nil, err
	}
	steps.Add("ending the metadata service", func(context.Context) error { return m.Server.end() })
	h.setMetadata(slotID, *m)
	s = s.clone()
	s.Metadata = *m
	if !s.Egress.Open() {
		if err := h.holdToEgress(made, s); err != nil {
			return nil, err
		}
	}
	return m, ctx.Err()
}

// withSlot runs f on what the host has of a slot that is taken.
func (h *Host) withSlot(s *Slot, f func(*slot) error) error {
	made, err := h.find(s)
	if err != nil {
		return err
	}
	return errors.Join(f(made), made.close())
}

func (h *Host) setMetadata(slotID string, m Metadata) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s := h.slots[slotID]; s != nil {
		s.Metadata = m
	}
}

// SetMetadata changes the document that a slot's machine is served.
func (h *Host) SetMetadata(slotID string, document []byte) error {
	path := h.metadataPath(slotID)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(mmds.Write(f, document), f.Close())
}

func (h *Host) forgetDocument(slotID string) error {
	if err := os.Remove(h.metadataPath(slotID)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// openMetadata gives the slot itself the service's address, a way back to the machine, and of the machine's packets those for it.
func (s *slot) openMetadata(i Interface) error {
	err := s.inside(func(links *netlink.Handle) error {
		tap, err := links.LinkByName(i.TAP)
		if err != nil {
			return err
		}
		at := tap.Attrs().Index
		guest := net.IP(i.addr(true).AsSlice())
		own := &netlink.Addr{IPNet: &net.IPNet{IP: metadataAddr.AsSlice(), Mask: net.CIDRMask(32, 32)}}
		if err := links.AddrAdd(tap, own); err != nil {
			return fmt.Errorf("adding %v to %s: %w", metadataAddr, i.TAP, err)
		}
		back := &netlink.Route{LinkIndex: at, Dst: &net.IPNet{IP: guest, Mask: net.CIDRMask(32, 32)}, Scope: netlink.SCOPE_LINK}
		if err := links.RouteAdd(back); err != nil {
			return fmt.Errorf("routing to the machine: %w", err)
		}
		return links.NeighAdd(&netlink.Neigh{LinkIndex: at, State: netlink.NUD_PERMANENT, IP: guest, HardwareAddr: i.MAC[:]})
	})
	if err != nil {
		return err
	}
	g := guardOf(i.Index)
	for _, r := range g.metadata() {
		s.guards.InsertRule(&nftables.Rule{Table: g.table, Chain: g.tap, UserData: metadataMark, Exprs: r})
	}
	if err := s.guards.Flush(); err != nil {
		return fmt.Errorf("opening the guard for metadata: %w", err)
	}
	return nil
}

// metadata are the rules for the service, the last first. What is for it and is not let in here goes nowhere.
func (g *guard) metadata() []rule {
	self := when(fieldIn(link, ethSrc, g.macs))
	to := when(etherType(unix.ETH_P_IP), field(network, ip4Dst, metadataAddr.AsSlice()...))
	// The frame is for the gateway's MAC, if the guest has no nearer way.
	mine := rule{
		&expr.Immediate{Register: 1, Data: []byte{unix.PACKET_HOST}},
		&expr.Meta{Key: expr.MetaKeyPKTTYPE, SourceRegister: true, Register: 1},
	}
	return []rule{
		when(to, drop),
		when(self, to, fieldIn(network, ip4Src, g.ip4), protocol(unix.IPPROTO_TCP), field(transport, portDst, port(metadataPort)...), mine, accept),
		when(self, etherType(unix.ETH_P_ARP), field(network, arpFixed, 0, 1, 8, 0, 6, 4), field(network, arpTarget, metadataAddr.AsSlice()...),
			fieldIn(network, arpSenderMAC, g.macs), fieldIn(network, arpSender, g.ip4), accept),
	}
}

// closeMetadata takes back what openMetadata did, or a part of it.
func (s *slot) closeMetadata() error {
	if err := s.deleteMarked(0, metadataMark); err != nil {
		return err
	}
	return s.inside(func(links *netlink.Handle) error {
		tap, err := links.LinkByName(tapName(0))
		if err != nil {
			return err
		}
		return errors.Join(clearNeighbours(links, tap), clearRoutes(links, tap), clearAddrs(links, tap))
	})
}

func clearNeighbours(links *netlink.Handle, of netlink.Link) error {
	all, err := dump(func() ([]netlink.Neigh, error) { return links.NeighList(of.Attrs().Index, netlink.FAMILY_V4) })
	errs := []error{err}
	for _, n := range all {
		if err := links.NeighDel(&n); !errors.Is(err, unix.ENOENT) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func clearRoutes(links *netlink.Handle, of netlink.Link) error {
	all, err := dump(func() ([]netlink.Route, error) { return links.RouteList(of, netlink.FAMILY_V4) })
	errs := []error{err}
	for _, r := range all {
		if err := links.RouteDel(&r); !errors.Is(err, unix.ESRCH) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func clearAddrs(links *netlink.Handle, of netlink.Link) error {
	all, err := dump(func() ([]netlink.Addr, error) { return links.AddrList(of, netlink.FAMILY_V4) })
	errs := []error{err}
	for _, a := range all {
		errs = append(errs, links.AddrDel(of, &a))
	}
	return errors.Join(errs...)
}

// deleteMarked deletes the rules of an interface's guard that have the comment.
func (s *slot) deleteMarked(index int, mark []byte) error {
	g := guardOf(index)
	for _, chain := range []*nftables.Chain{g.tap, g.ether} {
		rules, err := s.guards.GetRules(g.table, chain)
		if err != nil {
			return err
		}
		for _, r := range rules {
			if string(r.UserData) == string(mark) {
				if err := s.guards.DelRule(r); err != nil {
					return err
				}
			}
		}
	}
	return s.guards.Flush()
}

// startMetadata starts the process that answers, with a socket of the slot's.
func (h *Host) startMetadata(slotID string, made *slot) (Process, error) {
	if len(h.Metadata) == 0 {
		return Process{}, errors.New("no command is configured for it")
	}
	document, err := os.Open(h.metadataPath(slotID))
	if err != nil {
		return Process{}, err
	}
	defer document.Close()
	var socket *os.File
	err = within(made.ns, func() (err error) {
		socket, err = listen("tcp", netip.AddrPortFrom(metadataAddr, metadataPort))
		return err
	})
	if err != nil {
		return Process{}, err
	}
	defer socket.Close()
	return h.startOwn(h.Metadata, slotID, []string{"3", "4"}, []*os.File{socket, document})
}

// metadataAgain starts services again that ended without the daemon.
func (h *Host) metadataAgain() {
	h.mu.Lock()
	var lost []Slot
	for _, s := range h.slots {
		if s.Metadata.Server.PID != 0 && !s.Metadata.Server.alive() {
			lost = append(lost, *s)
		}
	}
	h.mu.Unlock()
	for _, s := range lost {
		made, err := h.find(&s)
		if err == nil {
			s.Metadata.Server, err = h.startMetadata(s.ID, made)
			err = errors.Join(err, made.close())
		}
		if err != nil {
			h.Log.Error("serving metadata again", "slot", s.ID, "error", err)
			continue
		}
		h.setMetadata(s.ID, s.Metadata)
	}
}

// sweepDocuments removes documents of slots that are on nobody's record.
func (h *Host) sweepDocuments(known map[string]bool) error {
	entries, err := os.ReadDir(h.metadataPath(""))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	errs := []error{err}
	for _, e := range entries {
		if !known[e.Name()] {
			errs = append(errs, h.forgetDocument(e.Name()))
		}
	}
	return errors.Join(errs...)
}

// endMetadata ends a slot's service; the slot is being released.
func (h *Host) endMetadata(s *Slot) error {
	if s.Metadata.Server.PID == 0 {
		return nil
	}
	return errors.Join(s.Metadata.Server.end(), h.forgetDocument(s.ID))
}
