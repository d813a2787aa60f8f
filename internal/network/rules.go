// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

const refuseChain = "refuse"

// addRules adds the chains. Those that decide come right before the host's own filters:
// what they let through may still be stopped there.
func (h *Host) addRules(t *table) {
	for _, add := range []func(*table){
		h.addRefusal, h.addEarly, h.addTranslation, h.addForward, h.addInput, h.addPostrouting,
	} {
		add(t)
	}
}

// chain adds a base chain with rules.
func (h *Host) chain(t *table, name string, hook *nftables.ChainHook, priority nftables.ChainPriority, kind nftables.ChainType, rules ...rule) {
	c := h.nft.AddChain(&nftables.Chain{Name: name, Table: t.Table, Hooknum: hook, Priority: &priority, Type: kind})
	h.rules(t, c, rules...)
}

func (h *Host) rules(t *table, c *nftables.Chain, rules ...rule) {
	for _, r := range rules {
		h.nft.AddRule(&nftables.Rule{Table: t.Table, Chain: c, Exprs: r})
	}
}

// addRefusal is how machines hear that something is not allowed: at once.
func (h *Host) addRefusal(t *table) {
	c := h.nft.AddChain(&nftables.Chain{Name: refuseChain, Table: t.Table})
	h.rules(t, c,
		when(protocol(unix.IPPROTO_TCP), rule{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}}),
		rule{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED}},
	)
}

var refuse = rule{&expr.Verdict{Kind: expr.VerdictGoto, Chain: refuseChain}}

// addEarly keeps machines from the host's loopback addresses, which route_localnet
// would let them reach.
func (h *Host) addEarly(t *table) {
	h.chain(t, "early", nftables.ChainHookPrerouting, *nftables.ChainPriorityRaw, nftables.ChainTypeFilter,
		when(inputIn(t.bridges), isIPv4, field(network, ip4Dst, 127), drop),
		when(inputIn(t.bridges), isIPv4, field(network, ip4Src, 127), drop),
	)
}

// addTranslation sends what comes to a published port on to its machine: from outside, from
// the host itself, and from machines of the same network. IPv6's loopback cannot be sent on: the kernel drops what leaves
// the host with it as source, see portproxy.
func (h *Host) addTranslation(t *table) {
	var far, near []rule
	for _, k := range portKinds {
		if k.near {
			near = append(near, when(inputIn(t.bridges), translate(k, t.ports[k])))
		} else {
			far = append(far, translate(k, t.ports[k]))
		}
	}
	notNames := []rule{ // names are asked of the gateway, whoever publishes port 53
		when(inputIn(t.bridges), protocol(unix.IPPROTO_UDP), toInterface, field(transport, portDst, port(dnsPort)...), accept),
		when(inputIn(t.bridges), protocol(unix.IPPROTO_TCP), toInterface, field(transport, portDst, port(dnsPort)...), accept),
	}
	notOthers := []rule{when(inputIn(t.bridges), accept)}
	notLoopback := []rule{when(isIPv6, field(network, ip6Dst, loopback6...), accept)}
	before := *nftables.ChainPriorityNATDest - 1
	h.chain(t, "prerouting", nftables.ChainHookPrerouting, before, nftables.ChainTypeNAT, slices.Concat(notNames, near, notOthers, far)...)
	h.chain(t, "output", nftables.ChainHookOutput, before, nftables.ChainTypeNAT, slices.Concat(notLoopback, far)...)
}

// addForward decides on what goes through the host from or to a machine.
func (h *Host) addForward(t *table) {
	h.chain(t, "forward", nftables.ChainHookForward, *nftables.ChainPriorityFilter-1, nftables.ChainTypeFilter,
		when(isIPv4, inputIn(t.uplinks4), outputIn(t.uplinks4), drop),
		when(isIPv6, inputIn(t.uplinks6), outputIn(t.uplinks6), drop),
		when(inputNotIn(t.bridges), outputNotIn(t.bridges), accept), // not ours
		when(betweenIn(t.pairs), accept),
		when(connection(expr.CtStateBitINVALID), drop),
		when(connection(expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), accept),
		when(inputIn(t.bridges), outputIn(t.bridges), refuse),
		when(inputNotIn(t.bridges), translated, accept), // a published port
		when(inputNotIn(t.bridges), refuse),
		when(inputIn(t.internal), refuse),
		when(isIPv4, fieldIn(network, ip4Dst, t.metadata4), fieldNotIn(network, ip4Src, t.trusted4), refuse),
		when(isIPv6, fieldIn(network, ip6Dst, t.metadata6), fieldNotIn(network, ip6Src, t.trusted6), refuse),
	)
}

// ICMP that the host answers to machines (RFC 792, 4443).
const (
	icmpEcho  = 8
	icmp6Echo = 128
	dnsPort   = 53
)

// addInput keeps machines from the host itself: names and pings at the gateway aside.
func (h *Host) addInput(t *table) {
	h.chain(t, "input", nftables.ChainHookInput, *nftables.ChainPriorityFilter-1, nftables.ChainTypeFilter,
		when(inputNotIn(t.bridges), accept),
		when(connection(expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), accept),
		when(protocol(unix.IPPROTO_ICMPV6), field(transport, icmpType, icmp6NeighbourSolicit), accept),
		when(protocol(unix.IPPROTO_ICMPV6), field(transport, icmpType, icmp6NeighbourAdvert), accept),
		when(protocol(unix.IPPROTO_ICMPV6), toInterface, field(transport, icmpType, icmp6Echo), accept),
		when(protocol(unix.IPPROTO_ICMP), toInterface, field(transport, icmpType, icmpEcho), accept),
		when(protocol(unix.IPPROTO_UDP), toInterface, field(transport, portDst, port(dnsPort)...), accept),
		when(protocol(unix.IPPROTO_TCP), toInterface, field(transport, portDst, port(dnsPort)...), accept),
		refuse,
	)
}

// addPostrouting gives machines the host's address on their way out, and whoever could not
// be answered otherwise: the host at 127.0.0.1, a machine that comes by a port which its
// own network publishes.
func (h *Host) addPostrouting(t *table) {
	masquerade := rule{&expr.Masq{}}
	h.chain(t, "postrouting", nftables.ChainHookPostrouting, *nftables.ChainPriorityNATSource, nftables.ChainTypeNAT,
		when(isIPv4, fieldIn(network, ip4Src, t.out4), outputNotIn(t.bridges), masquerade),
		when(isIPv6, fieldIn(network, ip6Src, t.out6), outputNotIn(t.bridges), masquerade),
		when(outputIn(t.bridges), isIPv4, field(network, ip4Src, 127), masquerade),
		when(outputIn(t.bridges), translated, isIPv4, fieldIn(network, ip4Src, t.out4), masquerade),
		when(outputIn(t.bridges), translated, isIPv6, fieldIn(network, ip6Src, t.out6), masquerade),
	)
}
