// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package ocispec

import (
	"fmt"
	"net/netip"
	"strings"
)

// ownAddress stands for the container in /etc/hosts while it has loopback only (Debian's convention).
const ownAddress = "127.0.1.1"

// setFiles writes what is bound over the image's /etc/hosts, /etc/hostname and /etc/resolv.conf.
func setFiles(b *Bundle, in Input) error {
	hosts, err := hostsFile(in, b.Spec.Hostname)
	if err != nil {
		return err
	}
	resolv, err := resolvFile(in)
	if err != nil {
		return err
	}
	b.Files = []File{
		{Path: "/etc/hosts", Mode: 0o644, Content: []byte(hosts)},
		{Path: "/etc/hostname", Mode: 0o644, Content: []byte(b.Spec.Hostname + "\n")},
		{Path: "/etc/resolv.conf", Mode: 0o644, Content: []byte(resolv)},
	}
	return nil
}

func hostsFile(in Input, host string) (string, error) {
	var s strings.Builder
	s.WriteString("127.0.0.1\tlocalhost\n" +
		"::1\tlocalhost ip6-localhost ip6-loopback\n" +
		"fe00::\tip6-localnet\n" +
		"ff00::\tip6-mcastprefix\n" +
		"ff02::1\tip6-allnodes\n" +
		"ff02::2\tip6-allrouters\n")
	for _, extra := range in.Config.ExtraHosts {
		name, address, err := extraHost(extra, in.Network)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&s, "%s\t%s\n", address, name)
	}
	names := host
	if in.Config.Domainname != "" {
		names = host + "." + in.Config.Domainname + " " + host
	}
	own := []netip.Addr{netip.MustParseAddr(ownAddress)}
	if in.Network != nil && len(in.Network.Addresses) > 0 {
		own = in.Network.Addresses
	}
	for _, address := range own {
		fmt.Fprintf(&s, "%s\t%s\n", address, names)
	}
	return s.String(), nil
}

// hostGateway stands for the host's address in --add-host.
const hostGateway = "host-gateway"

// extraHost takes name:address and name=address; an IPv6 address may stand in brackets.
func extraHost(extra string, n *Network) (name string, address netip.Addr, err error) {
	at := strings.IndexAny(extra, ":=")
	if at > 0 && extra[at+1:] == hostGateway && hostnamePattern.MatchString(extra[:at]) {
		if n == nil { // not known yet
			return extra[:at], netip.IPv4Unspecified(), nil
		}
		if !n.HostGateway.IsValid() {
			return "", netip.Addr{}, invalid("--add-host", extra, "the container's networks have no way to the host", "")
		}
		return extra[:at], n.HostGateway, nil
	}
	if at > 0 {
		name = extra[:at]
		text := strings.TrimSuffix(strings.TrimPrefix(extra[at+1:], "["), "]")
		address, err = netip.ParseAddr(text)
	}
	if at <= 0 || err != nil || address.Zone() != "" || !hostnamePattern.MatchString(name) {
		return "", netip.Addr{}, invalid("--add-host", extra, "is not of the form name:address", "such as db:10.0.0.5, or host:host-gateway")
	}
	return name, address, nil
}

// maxResolvValues bounds each list of resolv.conf; the resolver itself reads no more than a few.
const maxResolvValues = 64

// resolvFile names the network's name servers where there are any: they ask those of --dns, and
// know the other containers besides.
func resolvFile(in Input) (string, error) {
	var s strings.Builder
	c, servers := in.Config, []string{}
	for _, server := range c.DNS {
		if _, err := netip.ParseAddr(server); err != nil {
			return "", invalid("--dns", server, "is not an IP address", "such as 9.9.9.9")
		}
		servers = append(servers, server)
	}
	search := c.DNSSearch
	if in.Network != nil {
		if len(search) == 0 {
			search = in.Network.Search
		}
		if len(in.Network.Resolvers) > 0 {
			servers = nil
		}
		for _, server := range in.Network.Resolvers {
			servers = append(servers, server.String())
		}
	}
	for _, server := range servers {
		fmt.Fprintf(&s, "nameserver %s\n", server)
	}
	lists := []struct {
		field, keyword string
		values         []string
	}{{"--dns-search", "search", search}, {"--dns-option", "options", c.DNSOptions}}
	for _, l := range lists {
		for _, v := range l.values {
			if v == "" || len(v) > 255 || strings.ContainsAny(v, " \t\r\n\x00#;") {
				return "", invalid(l.field, v, "must be one word", "")
			}
		}
		if len(l.values) > maxResolvValues || len(c.DNS) > maxResolvValues {
			return "", invalid(l.field, "", fmt.Sprintf("more than %d values", maxResolvValues), "")
		}
		// A single dot means: no search list.
		if len(l.values) > 0 && !(len(l.values) == 1 && l.values[0] == ".") {
			fmt.Fprintf(&s, "%s %s\n", l.keyword, strings.Join(l.values, " "))
		}
	}
	return s.String(), nil
}
