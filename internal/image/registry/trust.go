// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"
)

// trust says which hosts may be reached without a verified certificate.
type trust struct {
	hosts  map[string]bool // HOST or HOST:PORT
	ranges []netip.Prefix
}

func newTrust(insecure []string) (trust, error) {
	t := trust{hosts: map[string]bool{}, ranges: []netip.Prefix{
		netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128"),
	}}
	for _, s := range insecure {
		if p, err := netip.ParsePrefix(s); err == nil {
			t.ranges = append(t.ranges, p)
			continue
		}
		if strings.ContainsAny(s, "/ ") || s == "" {
			return trust{}, fmt.Errorf("insecure registry %q is neither HOST, HOST:PORT nor a CIDR range", s)
		}
		t.hosts[strings.ToLower(s)] = true
	}
	return t, nil
}

// insecure tells if hostport (HOST or HOST:PORT) needs no verified TLS.
func (t trust) insecure(hostport string) bool {
	hostport = strings.ToLower(hostport)
	host := hostOf(hostport)
	if host == "localhost" || t.hosts[hostport] || t.hosts[host] {
		return true
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	for _, p := range t.ranges {
		if p.Contains(addr.Unmap()) {
			return true
		}
	}
	return false
}

// hostOf strips port and brackets.
func hostOf(hostport string) string {
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		return h
	}
	return strings.Trim(hostport, "[]")
}

// place is where a repository may be found: a host and what goes before the
// repository's path there.
type place struct {
	host, prefix string
	plain        bool // http:// was named
}

// parsePlace reads a mirror: [http[s]://]HOST[:PORT][/PREFIX].
func parsePlace(s string) (place, error) {
	full := s
	if !strings.Contains(s, "://") {
		full = "https://" + s
	}
	u, err := url.Parse(full)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || (u.Scheme != "https" && u.Scheme != "http") {
		return place{}, fmt.Errorf("mirror %q is not of the form [http[s]://]HOST[:PORT][/PREFIX]", s)
	}
	return place{host: strings.ToLower(u.Host), prefix: strings.Trim(u.Path, "/"), plain: u.Scheme == "http"}, nil
}
