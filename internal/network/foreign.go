// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"
)

// What a host's other filters (Docker's, firewalld's, ufw's) drop stays dropped, whatever our
// table says: all of a hook's chains must let a packet pass. So each of them gets rules of
// ours at its head that let machines' packets pass; what those may do is decided in our own
// table alone. They are marked by a comment, and removed by Prune.

// dockerUser is the chain that Docker leaves to the host's owner, and calls first.
const dockerUser = "DOCKER-USER"

// opening is a chain of somebody else's that has to let our packets pass.
type opening struct {
	chain *nftables.Chain
	rules []rule
}

// passThrough lets machines' packets through the filters of others, where they are not let yet.
func (h *Host) passThrough() error {
	h.tableMu.Lock()
	defer h.tableMu.Unlock()
	openings, err := h.openings()
	if err != nil {
		return fmt.Errorf("looking at the host's filters: %w", err)
	}
	for _, o := range openings {
		if err := h.open(o); err != nil {
			return fmt.Errorf("letting machines through chain %s of table %s: %w", o.chain.Name, o.chain.Table.Name, err)
		}
	}
	return h.passLegacy()
}

// openings are the filters of forwarding, and of what comes to the host: names are asked there.
func (h *Host) openings() ([]opening, error) {
	chains, err := h.nft.ListChains()
	if err != nil {
		return nil, err
	}
	from, to := devices(expr.MetaKeyIIFNAME, h.bridgePrefix()), devices(expr.MetaKeyOIFNAME, h.bridgePrefix())
	var found []opening
	for _, c := range chains {
		if !h.isForeignFilter(c) {
			continue
		}
		switch *c.Hooknum {
		case *nftables.ChainHookForward:
			found = append(found, opening{userChain(chains, c), []rule{from, to}})
		case *nftables.ChainHookInput:
			found = append(found, opening{c, []rule{from}})
		}
	}
	return found, nil
}

func (h *Host) isForeignFilter(c *nftables.Chain) bool {
	switch c.Table.Family {
	case nftables.TableFamilyIPv4, nftables.TableFamilyIPv6, nftables.TableFamilyINet:
	default:
		return false
	}
	return c.Hooknum != nil && c.Type == nftables.ChainTypeFilter && !strings.HasPrefix(c.Table.Name, tablePrefix)
}

// userChain is where in a table rules of others belong: Docker puts its own before all else
// in FORWARD again and again.
func userChain(chains []*nftables.Chain, base *nftables.Chain) *nftables.Chain {
	for _, c := range chains {
		if c.Name == dockerUser && c.Table.Name == base.Table.Name && c.Table.Family == base.Table.Family {
			return c
		}
	}
	return base
}

// devices is: the device's name begins so. The counter is there for iptables, which lists
// such a rule as one of its own.
func devices(key expr.MetaKey, prefix string) rule {
	return rule{meta(key), equals([]byte(prefix)), &expr.Counter{}, &expr.Verdict{Kind: expr.VerdictAccept}}
}

// open puts the rules at the head of the chain, unless they are there or nothing in it
// could drop.
func (h *Host) open(o opening) error {
	present, err := h.nft.GetRules(o.chain.Table, o.chain)
	if err != nil {
		return err
	}
	drops := o.chain.Policy != nil && *o.chain.Policy == nftables.ChainPolicyDrop
	ours := 0
	for ours < len(present) && h.isOurs(present[ours]) {
		ours++
	}
	if ours == len(o.rules) || len(present) == 0 && !drops && o.chain.Name != dockerUser {
		return nil
	}
	for _, r := range present {
		if h.isOurs(r) {
			if err := h.nft.DelRule(r); err != nil {
				return err
			}
		}
	}
	for _, exprs := range o.rules {
		h.nft.InsertRule(&nftables.Rule{Table: o.chain.Table, Chain: o.chain, Exprs: exprs, UserData: h.mark()})
	}
	return h.nft.Flush()
}

// mark is the comment of our rules among others'.
func (h *Host) mark() []byte {
	return userdata.AppendString(nil, userdata.TypeComment, h.tableName())
}

func (h *Host) isOurs(r *nftables.Rule) bool { return bytes.HasPrefix(r.UserData, h.mark()) }

// withdraw takes our rules out of others' filters.
func (h *Host) withdraw() error {
	h.tableMu.Lock()
	defer h.tableMu.Unlock()
	openings, err := h.openings()
	if err != nil {
		return err
	}
	for _, o := range openings {
		rules, err := h.nft.GetRules(o.chain.Table, o.chain)
		if err != nil {
			return err
		}
		for _, r := range rules {
			if h.isOurs(r) {
				if err := h.nft.DelRule(r); err != nil {
					return err
				}
			}
		}
	}
	if err := h.nft.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("withdrawing from the host's filters: %w", err)
	}
	return h.withdrawLegacy()
}
