// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// table is the host's own table of this daemon. Its rules never change: what does is in
// sets and maps, so that neither many networks nor many ports make a packet's way longer.
type table struct {
	*nftables.Table

	bridges  *nftables.Set // names of our bridges
	pairs    *nftables.Set // each bridge with itself: within a network
	internal *nftables.Set // bridges of internal networks
	out4     *nftables.Set // subnets that go out under the host's address
	out6     *nftables.Set

	metadata4, metadata6 *nftables.Set // where clouds tell secrets
	trusted4, trusted6   *nftables.Set // addresses of machines that may ask there
}

// Where clouds serve metadata and credentials: AWS, GCP, Azure, Oracle and most others at the
// first, Alibaba and Azure's agent at the next, AWS and GCP over IPv6.
var (
	metadata4 = []netip.Prefix{
		netip.MustParsePrefix("169.254.0.0/16"),
		netip.MustParsePrefix("100.100.100.200/32"),
		netip.MustParsePrefix("168.63.129.16/32"),
	}
	metadata6 = []netip.Prefix{
		netip.MustParsePrefix("fd00:ec2::/32"),
		netip.MustParsePrefix("fd20:ce::254/128"),
	}
)

var namePair = nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeIFName)

func (h *Host) table() *table {
	t := &table{Table: &nftables.Table{Family: nftables.TableFamilyINet, Name: "micropod-" + h.tag}}
	id := uint32(0)
	set := func(name string, key nftables.SetDatatype) *nftables.Set {
		id++
		return &nftables.Set{Table: t.Table, ID: id, Name: name, KeyType: key}
	}
	prefixes := func(name string, key nftables.SetDatatype) *nftables.Set {
		s := set(name, key)
		s.Interval = true
		return s
	}
	t.bridges = set("bridges", nftables.TypeIFName)
	t.internal = set("internal", nftables.TypeIFName)
	// Without it nft(8) shows names backwards.
	t.bridges.KeyByteOrder, t.internal.KeyByteOrder = binaryutil.NativeEndian, binaryutil.NativeEndian
	t.pairs = set("pairs", namePair)
	t.pairs.Concatenation = true
	t.out4, t.out6 = prefixes("out4", nftables.TypeIPAddr), prefixes("out6", nftables.TypeIP6Addr)
	t.metadata4, t.metadata6 = prefixes("metadata4", nftables.TypeIPAddr), prefixes("metadata6", nftables.TypeIP6Addr)
	t.trusted4, t.trusted6 = set("trusted4", nftables.TypeIPAddr), set("trusted6", nftables.TypeIP6Addr)
	return t
}

// makeTable writes the table anew, without what networks and slots put in.
func (h *Host) makeTable() error {
	h.tableMu.Lock()
	defer h.tableMu.Unlock()
	t := h.table()
	h.nft.AddTable(t.Table) // or deleting it would be an error
	h.nft.DelTable(t.Table)
	h.nft.AddTable(t.Table)
	for _, s := range []*nftables.Set{t.bridges, t.internal, t.pairs, t.out4, t.out6, t.trusted4, t.trusted6} {
		if err := h.nft.AddSet(s, nil); err != nil {
			return err
		}
	}
	for s, prefixes := range map[*nftables.Set][]netip.Prefix{t.metadata4: metadata4, t.metadata6: metadata6} {
		var elements []nftables.SetElement
		for _, p := range prefixes {
			elements = append(elements, interval(p)...)
		}
		if err := h.nft.AddSet(s, elements); err != nil {
			return err
		}
	}
	for _, add := range []func(*table){h.addRefusal, h.addEarly, h.addForward, h.addInput, h.addPostrouting} {
		add(t)
	}
	if err := h.nft.Flush(); err != nil {
		return fmt.Errorf("making nftables table %s: %w", t.Name, err)
	}
	return nil
}

// removeTable takes the table off the host, if it is there.
func (h *Host) removeTable() error {
	h.tableMu.Lock()
	defer h.tableMu.Unlock()
	t := h.table()
	h.nft.AddTable(t.Table)
	h.nft.DelTable(t.Table)
	return h.nft.Flush()
}

const refuseChain = "refuse"

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

// addForward decides on what goes through the host from or to a machine.
func (h *Host) addForward(t *table) {
	h.chain(t, "forward", nftables.ChainHookForward, *nftables.ChainPriorityFilter-1, nftables.ChainTypeFilter,
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

// addPostrouting gives machines the host's address on their way out.
func (h *Host) addPostrouting(t *table) {
	masquerade := rule{&expr.Masq{}}
	h.chain(t, "postrouting", nftables.ChainHookPostrouting, *nftables.ChainPriorityNATSource, nftables.ChainTypeNAT,
		when(isIPv4, fieldIn(network, ip4Src, t.out4), outputNotIn(t.bridges), masquerade),
		when(isIPv6, fieldIn(network, ip6Src, t.out6), outputNotIn(t.bridges), masquerade),
	)
}

// admitNetwork puts a network into the table.
func (h *Host) admitNetwork(n Network) error {
	return h.changeNetwork(n, h.nft.SetAddElements)
}

// expelNetwork takes it out again.
func (h *Host) expelNetwork(n Network) error {
	err := h.changeNetwork(n, h.nft.SetDeleteElements)
	if errors.Is(err, unix.ENOENT) {
		return nil // it was not in, or only half
	}
	return err
}

func (h *Host) changeNetwork(n Network, change func(*nftables.Set, []nftables.SetElement) error) error {
	h.tableMu.Lock()
	defer h.tableMu.Unlock()
	t, name := h.table(), ifname(n.Bridge)
	sets := map[*nftables.Set][]nftables.SetElement{
		t.bridges: {{Key: name}},
		t.pairs:   {{Key: slices.Concat(name, name)}},
	}
	if n.Internal {
		sets[t.internal] = []nftables.SetElement{{Key: name}}
	} else {
		for _, s := range n.Subnets {
			set := t.out6
			if s.Prefix.Addr().Is4() {
				set = t.out4
			}
			sets[set] = append(sets[set], interval(s.Prefix)...)
		}
	}
	for set, elements := range sets {
		if err := change(set, elements); err != nil {
			return err
		}
	}
	return h.nft.Flush()
}
