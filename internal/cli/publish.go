// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"net/netip"
	"strconv"
	"strings"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

const publishHint = "write it like -p 8080:80, -p 127.0.0.1:8080:80/tcp, -p 8000-8010:80-90 or -p 80"

// parsePublish reads docker's [ip:][host][:container][/protocol]; either port may be a range.
func parsePublish(text string) ([]*v1.PortMapping, error) {
	bad := func(why string) error { return usagef(publishHint, "-p %q: %s", text, why) }
	spec, protocol, given := strings.Cut(text, "/")
	if !given {
		protocol = "tcp"
	}
	if protocol != "tcp" && protocol != "udp" {
		return nil, bad("the protocol is neither tcp nor udp")
	}
	ip, host, container, ok := splitPublish(spec)
	if !ok {
		return nil, bad("it is not of the form [ip:][host-port:]container-port")
	}
	if _, err := netip.ParseAddr(ip); ip != "" && err != nil {
		return nil, bad("\"" + ip + "\" is no IP address")
	}
	from, to, ok := portRange(container)
	if !ok {
		return nil, bad("\"" + container + "\" is no port of the container")
	}
	hostFrom, hostTo, ok := uint32(0), uint32(0), true
	if host != "" && host != "0" {
		hostFrom, hostTo, ok = portRange(host)
	}
	if !ok {
		return nil, bad("\"" + host + "\" is no port of the host")
	}
	if hostFrom != 0 && from != to && hostTo-hostFrom != to-from {
		return nil, bad("the ranges are not equally long")
	}
	return mappings(ip, protocol, from, to, hostFrom, hostTo), nil
}

func mappings(ip, protocol string, from, to, hostFrom, hostTo uint32) (list []*v1.PortMapping) {
	for port := from; port <= to; port++ {
		m := &v1.PortMapping{HostIp: ip, ContainerPort: port, Protocol: protocol}
		switch {
		case hostFrom == 0: // any free one
		case from == to && hostFrom != hostTo: // one of a range
			m.HostPort, m.HostPortEnd = hostFrom, hostTo
		default:
			m.HostPort = hostFrom + port - from
		}
		list = append(list, m)
	}
	return list
}

// splitPublish takes the parts apart; an IPv6 address stands in brackets.
func splitPublish(spec string) (ip, host, container string, ok bool) {
	if rest, bracketed := strings.CutPrefix(spec, "["); bracketed {
		if ip, rest, ok = strings.Cut(rest, "]:"); !ok {
			return "", "", "", false
		}
		host, container, ok = strings.Cut(rest, ":")
		return ip, host, container, ok
	}
	switch parts := strings.Split(spec, ":"); len(parts) {
	case 1:
		return "", "", parts[0], true
	case 2:
		return "", parts[0], parts[1], true
	case 3:
		return parts[0], parts[1], parts[2], true
	default:
		return "", "", "", false
	}
}

// portRange reads PORT or PORT-PORT.
func portRange(text string) (from, to uint32, ok bool) {
	first, last, isRange := strings.Cut(text, "-")
	if !isRange {
		last = first
	}
	a, err := strconv.ParseUint(first, 10, 16)
	b, errLast := strconv.ParseUint(last, 10, 16)
	return uint32(a), uint32(b), err == nil && errLast == nil && a > 0 && b >= a
}
