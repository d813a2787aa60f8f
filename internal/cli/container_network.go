// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/spf13/pflag"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

// networkFlags are what run and create take of the network.
type networkFlags struct {
	networks, aliases, publish, expose []string
	ip, ip6, mac                       string
	publishAll                         bool
	egress                             []string
	mmds                               string
	limits                             rateFlags
}

// defaultNetwork is the daemon's, joined by name when an address of it is wanted.
const defaultNetwork = "micropod"

func (o *networkFlags) addNetwork(f *pflag.FlagSet) {
	f.StringArrayVar(&o.networks, "network", nil, "join a `network`: NAME, name=NAME,alias=...,ip=...,ip6=...,mac-address=...,rate-up=..., or none")
	f.StringArrayVar(&o.networks, "net", nil, "as --network")
	f.Lookup("net").Hidden = true
	f.StringArrayVar(&o.aliases, "network-alias", nil, "another `name` by which the network's containers find this one")
	f.StringVar(&o.ip, "ip", "", "IPv4 `address` in the network")
	f.StringVar(&o.ip6, "ip6", "", "IPv6 `address` in the network")
	f.StringVar(&o.mac, "mac-address", "", "Ethernet `address`, such as 02:00:5e:00:53:01")
	o.limits.add(f)
	o.addEgress(f)
	f.StringVar(&o.mmds, "mmds", "", "serve the `file`'s JSON object at 169.254.169.254, in the way of Firecracker's metadata service (-: standard input)")
	f.StringArrayVarP(&o.publish, "publish", "p", nil, "publish a port on the host: `[ip:][host-port:]container-port[/udp]`, also ranges")
	f.BoolVarP(&o.publishAll, "publish-all", "P", false, "publish all exposed ports on free ports of the host")
	f.StringArrayVar(&o.expose, "expose", nil, "a `port` for --publish-all beside the image's: 80, 80-90, 53/udp")
}

func (o *networkFlags) addEgress(f *pflag.FlagSet) {
	f.StringArrayVar(&o.egress, "egress", nil, "where connections may go: `allow=TARGET[:PORT][/tcp|udp|icmp]` or deny=..., TARGET a domain name, *.NAME, address, range, network or *; allow or deny for the rest")
}

func (o *networkFlags) readNetwork(c *v1.ContainerConfig) error {
	for _, text := range o.networks {
		join, err := parseJoin(text)
		if err != nil {
			return err
		}
		c.Networks = append(c.Networks, join)
	}
	if err := o.firstJoin(c); err != nil {
		return err
	}
	for _, text := range o.publish {
		ports, err := parsePublish(text)
		if err != nil {
			return err
		}
		c.Ports = append(c.Ports, ports...)
	}
	c.PublishAll, c.Expose = o.publishAll, o.expose
	if len(o.egress) > 0 {
		c.Egress = &v1.Egress{Rules: o.egress}
	}
	if o.mmds != "" {
		text, err := readDocument(os.Stdin, o.mmds)
		if err != nil {
			return err
		}
		c.Mmds = &text
	}
	return nil
}

// firstJoin puts what the flags beside --network say to the first network.
func (o *networkFlags) firstJoin(c *v1.ContainerConfig) error {
	limits, err := o.limits.read()
	if err != nil {
		return err
	}
	if o.ip == "" && o.ip6 == "" && o.mac == "" && len(o.aliases) == 0 && limits == nil {
		return nil
	}
	if len(c.Networks) == 0 {
		c.Networks = []*v1.NetworkJoin{{Network: defaultNetwork}}
	}
	first := c.Networks[0]
	if first.Network == "none" {
		return usagef("leave out --network none", "--ip, --ip6, --mac-address, --network-alias and limits of rates need a network")
	}
	first.Ip, first.Ip6, first.Mac = firstOf(o.ip, first.Ip), firstOf(o.ip6, first.Ip6), firstOf(o.mac, first.Mac)
	first.Aliases = append(first.Aliases, o.aliases...)
	if limits != nil {
		first.Limits = limits
	}
	return checkJoin(first)
}

// parseJoin reads --network: a name, or keys and values as docker's.
func parseJoin(text string) (*v1.NetworkJoin, error) {
	join, limits := &v1.NetworkJoin{}, rateFlags{}
	if !strings.Contains(text, "=") {
		join.Network = text
	} else {
		for _, field := range strings.Split(text, ",") {
			key, value, _ := strings.Cut(field, "=")
			switch key {
			case "name":
				join.Network = value
			case "alias":
				join.Aliases = append(join.Aliases, value)
			case "ip":
				join.Ip = value
			case "ip6":
				join.Ip6 = value
			case "mac-address":
				join.Mac = value
			case "rate-up", "rate-down", "packets-up", "packets-down":
				*limits.of(key) = value
			default:
				return nil, usagef("keys are name, alias, ip, ip6, mac-address, rate-up, rate-down, packets-up and packets-down", "--network %q: %q is unknown", text, key)
			}
		}
	}
	var err error
	if join.Limits, err = limits.read(); err != nil {
		return nil, err
	}
	switch {
	case join.Network == "":
		return nil, usagef("write --network NAME", "--network %q names no network", text)
	case join.Network == "host":
		return nil, usagef("publish ports with -p, and reach the host by --add-host NAME:host-gateway", "--network host: a machine cannot share the host's network")
	case strings.HasPrefix(join.Network, "container:"):
		return nil, usagef("join both to one network and use their names", "--network %q: two containers in one machine are not possible yet", text)
	case join.Network == "bridge" || join.Network == "default":
		join.Network = defaultNetwork
	}
	return join, checkJoin(join)
}

func checkJoin(j *v1.NetworkJoin) error {
	if a, err := netip.ParseAddr(j.Ip); j.Ip != "" && (err != nil || !a.Is4()) {
		return usagef("such as --ip 10.96.0.7", "--ip %q is no IPv4 address", j.Ip)
	}
	if a, err := netip.ParseAddr(j.Ip6); j.Ip6 != "" && (err != nil || !a.Is6() || a.Zone() != "") {
		return usagef("such as --ip6 fd00::7", "--ip6 %q is no IPv6 address", j.Ip6)
	}
	if mac, err := net.ParseMAC(j.Mac); j.Mac != "" && (err != nil || len(mac) != 6) {
		return usagef("such as --mac-address 02:00:5e:00:53:01", "--mac-address %q is no Ethernet address", j.Mac)
	}
	return nil
}
