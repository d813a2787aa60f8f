// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// A limited interface may send at once what the rate allows in 1/burstShare of a second, and at
	// least minBurst bytes, some full frames. What waits longer than queueShare of a second is dropped.
	burstShare = 100
	minBurst   = 16 << 10
	queueShare = 10
)

// limitMark is the comment of rules that limit packets.
var limitMark = []byte("limit")

// limit bounds an interface's traffic: bytes by a queue on the device that they leave by,
// packets by a rule before all others. A limit of zero makes nothing.
func (s *slot) limit(index int, l Limits) error {
	if l == (Limits{}) {
		return nil
	}
	g := guardOf(index)
	for chain, rate := range map[*nftables.Chain]uint64{g.tap: l.PacketsUp, g.ether: l.PacketsDown} {
		if rate > 0 {
			s.guards.InsertRule(&nftables.Rule{Table: g.table, Chain: chain, UserData: limitMark, Exprs: rule{
				&expr.Limit{Type: expr.LimitTypePkts, Rate: rate, Unit: expr.LimitTimeSecond, Over: true, Burst: uint32(max(1, min(rate/burstShare, 1<<16)))},
				&expr.Verdict{Kind: expr.VerdictDrop},
			}})
		}
	}
	if err := s.guards.Flush(); err != nil {
		return err
	}
	return s.inside(func(links *netlink.Handle) error {
		return errors.Join(
			setRate(links, ethName(index), l.Up/8),
			setRate(links, tapName(index), l.Down/8),
		)
	})
}

// setRate puts a token bucket on a device; rate is bytes per second.
func setRate(links *netlink.Handle, name string, rate uint64) error {
	if rate == 0 {
		return nil
	}
	l, err := links.LinkByName(name)
	if err != nil {
		return err
	}
	burst := uint32(min(max(rate/burstShare, minBurst), 64<<20))
	err = links.QdiscAdd(&netlink.Tbf{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: l.Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT},
		Rate:       rate,
		Buffer:     uint32(netlink.Xmittime(rate, burst)),
		Limit:      uint32(min(rate/queueShare, 64<<20)) + burst,
	})
	if err != nil {
		return fmt.Errorf("limiting the rate of %s: %w", name, err)
	}
	return nil
}

// unlimit takes back what limit made.
func (s *slot) unlimit(index int, l Limits) error {
	if l == (Limits{}) {
		return nil
	}
	if err := s.deleteMarked(index, limitMark); err != nil {
		return err
	}
	return s.inside(func(links *netlink.Handle) error {
		return errors.Join(clearRate(links, ethName(index), l.Up), clearRate(links, tapName(index), l.Down))
	})
}

func clearRate(links *netlink.Handle, name string, rate uint64) error {
	if rate < 8 {
		return nil
	}
	l, err := links.LinkByName(name)
	if err != nil {
		return err
	}
	err = links.QdiscDel(&netlink.Tbf{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: l.Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT,
	}})
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}
