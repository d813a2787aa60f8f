// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

func newNetwork(a *app) *cobra.Command {
	return group("network", "Manage the networks that containers join", `  micropod network create --subnet 10.89.0.0/24 front
  micropod network connect front web
  micropod network ls`,
		newNetworkCreate(a), newNetworkList(a), newNetworkInspect(a), newNetworkRemove(a), newNetworkPrune(a),
		newNetworkConnect(a), newNetworkDisconnect(a),
	)
}

type networkCreateOptions struct {
	subnets, gateways, labels []string
	internal, noIPv6          bool
	mtu                       uint32
}

func newNetworkCreate(a *app) *cobra.Command {
	o := &networkCreateOptions{}
	c := &cobra.Command{
		Use:   "create [flags] NETWORK",
		Short: "Make a network",
		Long: `Make a network and print its id.

Without --subnet one of IPv4 and one of IPv6 are chosen that this host has no route to.
Containers of one network find each other by name; those of other networks they do not reach.`,
		Example: `  micropod network create front
  micropod network create --subnet 10.89.0.0/24 --subnet fd00:89::/64 --internal back`,
		Args: exactArgs(1, "one network's name"),
		RunE: func(c *cobra.Command, args []string) error { return runNetworkCreate(c.Context(), a, o, args[0]) },
	}
	f := c.Flags()
	f.StringArrayVar(&o.subnets, "subnet", nil, "`range` of addresses, such as 10.89.0.0/24; one of each family may be given")
	f.StringArrayVar(&o.gateways, "gateway", nil, "the host's `address` in a subnet (default: the first)")
	f.BoolVar(&o.internal, "internal", false, "no way out of the network, and none in")
	f.BoolVar(&o.noIPv6, "ipv4-only", false, "choose no subnet of IPv6")
	f.Uint32Var(&o.mtu, "mtu", 0, "largest packet in `bytes` (default: that of the host's way out)")
	f.StringArrayVar(&o.labels, "label", nil, "set a label `key=value`")
	return c
}

func runNetworkCreate(ctx context.Context, a *app, o *networkCreateOptions, name string) error {
	request := &v1.CreateNetworkRequest{Name: name, Internal: o.internal, NoIpv6: o.noIPv6, Mtu: o.mtu, Labels: pairs(o.labels)}
	for _, text := range o.subnets {
		if _, err := netip.ParsePrefix(text); err != nil {
			return usagef("such as --subnet 10.89.0.0/24", "--subnet %q is no range of addresses", text)
		}
		request.Subnets = append(request.Subnets, &v1.Subnet{Prefix: text})
	}
	for _, text := range o.gateways {
		if err := setGateway(request.Subnets, text); err != nil {
			return err
		}
	}
	client, err := a.connect(ctx)
	if err != nil {
		return err
	}
	answer, err := client.networks.Create(ctx, connect.NewRequest(request))
	if err != nil {
		return err
	}
	fmt.Fprintln(a.out, answer.Msg.Network.Id)
	return nil
}

// setGateway gives an address to the subnet that it lies in.
func setGateway(subnets []*v1.Subnet, text string) error {
	address, err := netip.ParseAddr(text)
	if err != nil {
		return usagef("such as --gateway 10.89.0.1", "--gateway %q is no IP address", text)
	}
	for _, s := range subnets {
		if p, err := netip.ParsePrefix(s.Prefix); err == nil && p.Contains(address) {
			s.Gateway = text
			return nil
		}
	}
	return usagef("give the subnet too: --subnet", "--gateway %s lies in no --subnet", text)
}

// networkRow is a line of network ls. Field names are Docker's.
type networkRow struct {
	ID, Name, Driver, Scope, Subnets, Internal, Labels, CreatedAt string
	Containers                                                    int
}

var networkTable = table{
	quiet: "{{.ID}}",
	columns: []column{
		{"NETWORK ID", "{{.ID}}"}, {"NAME", "{{.Name}}"}, {"SUBNETS", "{{.Subnets}}"}, {"INTERNAL", "{{.Internal}}"}, {"CONTAINERS", "{{.Containers}}"},
	},
}

func newNetworkList(a *app) *cobra.Command {
	o := &formatFlags{}
	var wanted []string
	c := &cobra.Command{
		Use: "ls [flags]", Aliases: []string{"list"},
		Short: "List networks",
		Example: `  micropod network ls
  micropod network ls -q --filter label=team=blue`,
		Args: exactArgs(0, "no words, only flags"),
		RunE: func(c *cobra.Command, _ []string) error {
			filters, err := parseFilters(wanted, "id", "name", "label")
			if err != nil {
				return err
			}
			client, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			answer, err := client.networks.List(c.Context(), connect.NewRequest(&v1.ListNetworksRequest{}))
			if err != nil {
				return err
			}
			var rows []networkRow
			for _, n := range answer.Msg.Networks {
				if filters.network(n) {
					rows = append(rows, newNetworkRow(n))
				}
			}
			return printList(a.out, o, networkTable, rows)
		},
	}
	o.addFlags(c)
	c.Flags().StringArrayVarP(&wanted, "filter", "f", nil, "show only those with `id|name|label=value`")
	return c
}

func (f filterSet) network(n *v1.Network) bool {
	return f.any("id", func(v string) bool { return strings.HasPrefix(n.Id, v) }) &&
		f.any("name", func(v string) bool { return strings.Contains(n.Name, v) }) && f.labels(n.Labels)
}

func newNetworkRow(n *v1.Network) networkRow {
	var subnets []string
	for _, s := range n.Subnets {
		subnets = append(subnets, s.Prefix)
	}
	return networkRow{
		ID: n.Id, Name: n.Name, Driver: "bridge", Scope: "local", Subnets: strings.Join(subnets, " "), Internal: fmt.Sprint(n.Internal),
		Labels: joinLabels(n.Labels), CreatedAt: instant(n.CreatedAt), Containers: len(n.Members),
	}
}

func newNetworkInspect(a *app) *cobra.Command {
	var format string
	c := &cobra.Command{
		Use:   "inspect [flags] NETWORK [NETWORK...]",
		Short: "Show all that is known of networks, as JSON",
		Example: `  micropod network inspect front
  micropod network inspect -f '{{range .IPAM.Config}}{{.Gateway}} {{end}}' front`,
		Args: needArgs(1, "network"),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			var found []any
			failed := a.each(c, args, func(name string) (string, error) {
				answer, err := client.networks.Get(c.Context(), connect.NewRequest(&v1.GetNetworkRequest{Network: name}))
				if err == nil {
					found = append(found, networkView(answer.Msg.Network))
				}
				return "", err
			})
			if err := printInspected(a, format, found); err != nil {
				return err
			}
			return failed
		},
	}
	c.Flags().StringVarP(&format, "format", "f", "json", "`json|TEMPLATE`")
	return c
}

func newNetworkRemove(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "rm NETWORK [NETWORK...]",
		Aliases: []string{"remove"},
		Short:   "Remove networks that no running container is in",
		Example: `  micropod network rm front`,
		Args:    needArgs(1, "network"),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			return a.each(c, args, func(name string) (string, error) {
				_, err := client.networks.Remove(c.Context(), connect.NewRequest(&v1.RemoveNetworkRequest{Network: name}))
				return name, err
			})
		},
	}
}

func newNetworkPrune(a *app) *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use:     "prune [flags]",
		Short:   "Remove all networks that no running container is in",
		Long:    "Remove all networks that no running container is in, other than the default one.",
		Example: `  micropod network prune --force`,
		Args:    exactArgs(0, "no words, only flags"),
		RunE: func(c *cobra.Command, _ []string) error {
			if !force {
				if sure, err := a.confirm("this removes all networks that no running container is in"); err != nil || !sure {
					return err
				}
			}
			client, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			answer, err := client.networks.Prune(c.Context(), connect.NewRequest(&v1.PruneNetworksRequest{}))
			if err != nil {
				return err
			}
			for _, n := range answer.Msg.Networks {
				fmt.Fprintln(a.out, n.Name)
			}
			return nil
		},
	}
	c.Flags().BoolVarP(&force, "force", "f", false, "do it without asking")
	return c
}

func newNetworkConnect(a *app) *cobra.Command {
	o := &networkFlags{}
	c := &cobra.Command{
		Use:     "connect [flags] NETWORK CONTAINER",
		Short:   "Join a container to a further network",
		Long:    "Join a container to a further network, at once if it runs and at each of its starts.",
		Example: `  micropod network connect --alias db back postgres`,
		Args:    exactArgs(2, "a network and a container"),
		RunE: func(c *cobra.Command, args []string) error {
			limits, err := o.limits.read()
			if err != nil {
				return err
			}
			join := &v1.NetworkJoin{Network: args[0], Aliases: o.aliases, Ip: o.ip, Ip6: o.ip6, Mac: o.mac, Limits: limits}
			if err := checkJoin(join); err != nil {
				return err
			}
			client, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			_, err = client.networks.Connect(c.Context(), connect.NewRequest(&v1.ConnectNetworkRequest{VmId: args[1], Join: join}))
			return err
		},
	}
	f := c.Flags()
	f.StringArrayVar(&o.aliases, "alias", nil, "another `name` by which the network's containers find this one")
	f.StringVar(&o.ip, "ip", "", "IPv4 `address` in the network")
	f.StringVar(&o.ip6, "ip6", "", "IPv6 `address` in the network")
	f.StringVar(&o.mac, "mac-address", "", "Ethernet `address`, such as 02:00:5e:00:53:01")
	o.limits.add(f)
	return c
}

func newNetworkDisconnect(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "disconnect NETWORK CONTAINER",
		Short:   "Take a container out of a network",
		Example: `  micropod network disconnect back postgres`,
		Args:    exactArgs(2, "a network and a container"),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			_, err = client.networks.Disconnect(c.Context(), connect.NewRequest(&v1.DisconnectNetworkRequest{VmId: args[1], Network: args[0]}))
			return err
		},
	}
}

// networkInspect is what inspect prints; names and shape are Docker's where Docker has the thing.
type networkInspect struct {
	Name, Id, Created, Scope, Driver, Bridge string
	EnableIPv6, Internal                     bool
	MTU                                      uint32
	IPAM                                     ipamView
	Containers                               map[string]memberView
	Labels                                   map[string]string
}

type ipamView struct {
	Driver string
	Config []ipamRange
}

type ipamRange struct{ Subnet, Gateway string }

type memberView struct{ MacAddress, IPv4Address, IPv6Address string }

func networkView(n *v1.Network) any {
	v := networkInspect{
		Name: n.Name, Id: n.Id, Created: instant(n.CreatedAt), Scope: "local", Driver: "bridge", Bridge: n.Bridge,
		Internal: n.Internal, MTU: n.Mtu, IPAM: ipamView{Driver: "default", Config: []ipamRange{}},
		Containers: map[string]memberView{}, Labels: n.Labels,
	}
	for _, s := range n.Subnets {
		v.IPAM.Config = append(v.IPAM.Config, ipamRange{s.Prefix, s.Gateway})
		v.EnableIPv6 = v.EnableIPv6 || strings.Contains(s.Prefix, ":")
	}
	for _, m := range n.Members {
		four, six := byFamily(m.Endpoint.GetAddresses())
		v.Containers[m.VmId] = memberView{m.Endpoint.GetMac(), four, six}
	}
	return v
}

// byFamily gives the first address of each family.
func byFamily(addresses []string) (four, six string) {
	isSix := func(a string) bool { return strings.Contains(a, ":") }
	if i := slices.IndexFunc(addresses, isSix); i >= 0 {
		six = addresses[i]
	}
	if i := slices.IndexFunc(addresses, func(a string) bool { return !isSix(a) }); i >= 0 {
		four = addresses[i]
	}
	return four, six
}
