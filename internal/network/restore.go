// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// restore brings the host to what is on record, and the other way round: networks are
// made again, slots that are gone are returned, all else of ours is removed.
func (h *Host) restore(networks []Network, slots []Slot) (gone []Slot, err error) {
	if err := os.MkdirAll(h.path(""), 0o711); err != nil {
		return nil, err
	}
	known := map[string]bool{}
	for _, s := range slots {
		if !h.isThere(&s) {
			gone = append(gone, s)
			continue
		}
		known[s.ID] = true
	}
	if err := errors.Join(h.sweep(networks, known), h.sweepProxies(slots), h.sweepDocuments(known)); err != nil {
		return nil, err
	}
	for _, n := range networks {
		if err := h.ensure(n); err != nil {
			return nil, err
		}
	}
	for _, s := range slots {
		if !known[s.ID] {
			continue
		}
		h.note(s)
		if err := errors.Join(h.plugAgain(&s), h.egressAgain(&s)); err != nil {
			return nil, fmt.Errorf("network slot %s: %w", s.ID, err)
		}
	}
	h.republish()
	h.metadataAgain()
	if err := h.writeTable(); err != nil || len(networks) == 0 {
		return gone, err
	}
	return gone, h.passThrough()
}

// isThere says whether a slot outlived the daemon: not if the host was booted since.
func (h *Host) isThere(s *Slot) bool {
	if s.ID == "" || h.path(s.ID) != s.NetNS || !isNamespace(s.NetNS) {
		return false
	}
	for _, i := range s.Interfaces {
		if _, err := h.links.LinkByName(portName(s.ID, i.Index)); err != nil {
			return false
		}
	}
	return true
}

// note enters a slot that was found into the books.
func (h *Host) note(s Slot) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.slots[s.ID] = &s
	for _, i := range s.Interfaces {
		if n := h.networks[i.Network]; n != nil {
			n.note(s.ID, &i)
		}
	}
}

// plugAgain puts the ports of a slot on their bridges, if those had to be made again.
func (h *Host) plugAgain(s *Slot) error {
	for _, i := range s.Interfaces {
		n := h.networks[i.Network] // nobody else knows h yet
		if n == nil {
			return fmt.Errorf("%s: %w", i.Network, ErrNoNetwork)
		}
		l, err := h.links.LinkByName(portName(s.ID, i.Index))
		if err != nil {
			return err
		}
		if a := l.Attrs(); a.MasterIndex != n.index {
			if err := h.plug(a.Index, n.index); err != nil {
				return err
			}
		}
	}
	return nil
}

// sweep removes namespaces and devices of this daemon's that are on nobody's record.
func (h *Host) sweep(networks []Network, slots map[string]bool) error {
	var errs []error
	entries, err := os.ReadDir(h.path(""))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if !slots[e.Name()] {
			errs = append(errs, h.removeSlot(&slot{id: e.Name()}))
		}
	}
	ours := map[string]bool{}
	for _, n := range networks {
		ours[h.owner("network", n.ID)] = true
	}
	for id := range slots {
		ours[h.owner("slot", id)] = true
	}
	links, err := dump(h.links.LinkList)
	if err != nil {
		return fmt.Errorf("listing the host's devices: %w", err)
	}
	for _, l := range links {
		if a := l.Attrs(); strings.HasPrefix(a.Alias, h.owner("", "")[:len("micropod ")+len(h.tag)+1]) && !ours[a.Alias] {
			errs = append(errs, h.removeLink(a.Name))
		}
	}
	return errors.Join(errs...)
}

// Prune takes everything of this daemon's off the host: slots whether taken or not,
// networks, rules, and what it had to change of the host's settings.
func (h *Host) Prune() error {
	h.netMu.Lock()
	defer h.netMu.Unlock()
	if h.pool != nil {
		if err := h.pool.close(); err != nil {
			return err
		}
	}
	h.mu.Lock()
	clear(h.networks)
	clear(h.slots)
	h.mu.Unlock()
	return errors.Join(h.sweep(nil, nil), h.sweepProxies(nil), h.sweepDocuments(nil), h.withdraw(), h.removeTable(), h.restoreSettings())
}
