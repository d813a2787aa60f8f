// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Attributes of the expression "fwd", which the nftables library does not know
// (linux/netfilter/nf_tables.h, enum nft_fwd_attributes).
const nftaFwdSregDev = 1

// ruleLine is a rule of a netdev chain, in its final form: with fwdTo, a packet that
// matches all of it goes out of that interface as it is.
type ruleLine struct {
	chain   string
	matches rule
	fwdTo   int // index of an interface; 0: matches end in a verdict themselves
}

// appendRules adds rules to the chains of a netdev table, in one transaction. What they
// name is there already.
func appendRules(ns *os.File, table string, lines []ruleLine) error {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: int(ns.Fd())})
	if err != nil {
		return fmt.Errorf("opening an nftables socket: %w", err)
	}
	defer conn.Close()
	batch := []netlink.Message{batchMessage(unix.NFNL_MSG_BATCH_BEGIN)}
	for _, l := range lines {
		m, err := l.message(table)
		if err != nil {
			return err
		}
		batch = append(batch, m)
	}
	batch = append(batch, batchMessage(unix.NFNL_MSG_BATCH_END))
	if _, err := conn.SendMessages(batch); err != nil {
		return fmt.Errorf("sending rules: %w", err)
	}
	var errs []error
	for range lines {
		if _, err := conn.Receive(); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// batchMessage begins or ends a transaction of nftables.
func batchMessage(kind netlink.HeaderType) netlink.Message {
	return netlink.Message{
		Header: netlink.Header{Type: kind, Flags: netlink.Request},
		Data:   generic(unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES),
	}
}

// generic is struct nfgenmsg: family, version, and in network order what the message is for.
func generic(family byte, resource uint16) []byte {
	return binary.BigEndian.AppendUint16([]byte{family, unix.NFNETLINK_V0}, resource)
}

func (l ruleLine) message(table string) (netlink.Message, error) {
	list, err := l.expressions()
	if err != nil {
		return netlink.Message{}, err
	}
	data, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_RULE_TABLE, Data: cString(table)},
		{Type: unix.NFTA_RULE_CHAIN, Data: cString(l.chain)},
		{Type: unix.NLA_F_NESTED | unix.NFTA_RULE_EXPRESSIONS, Data: list},
	})
	return netlink.Message{
		Header: netlink.Header{
			Type:  unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWRULE,
			Flags: netlink.Request | netlink.Acknowledge | netlink.Create | netlink.Append,
		},
		Data: append(generic(unix.NFPROTO_NETDEV, 0), data...),
	}, err
}

func (l ruleLine) expressions() ([]byte, error) {
	var elements []netlink.Attribute
	add := func(data []byte, err error) error {
		elements = append(elements, netlink.Attribute{Type: unix.NLA_F_NESTED | unix.NFTA_LIST_ELEM, Data: data})
		return err
	}
	all := l.matches
	if l.fwdTo != 0 {
		all = append(all[:len(all):len(all)], &expr.Immediate{Register: 1, Data: binaryutil.NativeEndian.PutUint32(uint32(l.fwdTo))})
	}
	for _, e := range all {
		if err := add(expr.Marshal(unix.NFPROTO_NETDEV, e)); err != nil {
			return nil, fmt.Errorf("rule of %s: %w", l.chain, err)
		}
	}
	if l.fwdTo != 0 {
		if err := add(fwdExpression()); err != nil {
			return nil, err
		}
	}
	return netlink.MarshalAttributes(elements)
}

// fwdExpression sends the packet out of the interface whose index is in register 1.
func fwdExpression() ([]byte, error) {
	data, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: nftaFwdSregDev, Data: binaryutil.BigEndian.PutUint32(unix.NFT_REG_1)},
	})
	if err != nil {
		return nil, err
	}
	return netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_EXPR_NAME, Data: cString("fwd")},
		{Type: unix.NLA_F_NESTED | unix.NFTA_EXPR_DATA, Data: data},
	})
}

func cString(s string) []byte { return append([]byte(s), 0) }
