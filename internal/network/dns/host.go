// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"io"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Host is the host's own configuration of its resolver. It is read again when its file changes. It may be
// used concurrently.
type Host struct {
	path string

	mu      sync.Mutex
	changed time.Time // of the file when it was read
	servers []netip.AddrPort
	search  []string
}

// HostFile is where the host's configuration is.
const HostFile = "/etc/resolv.conf"

// maxHostFile bounds what is read of it, in bytes, maxServers and maxSearch what is used.
const (
	maxHostFile = 64 << 10
	maxServers  = 8
	maxSearch   = 16
)

// NewHost reads the file at path, HostFile as a rule, when first asked.
func NewHost(path string) *Host { return &Host{path: path} }

// Resolvers gives the host's name servers; those of an earlier state of the file when it cannot be read now.
func (h *Host) Resolvers() []netip.AddrPort {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.read()
	return h.servers
}

// Search gives the domains that the host tries for short names.
func (h *Host) Search() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.read()
	return h.search
}

func (h *Host) read() {
	f, err := os.Open(h.path)
	if err != nil {
		return
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.ModTime().Equal(h.changed) {
		return
	}
	c, err := dns.ClientConfigFromReader(io.LimitReader(f, maxHostFile))
	if err != nil {
		return
	}
	h.changed, h.servers, h.search = info.ModTime(), nil, nil
	for _, server := range c.Servers[:min(len(c.Servers), maxServers)] {
		if a, err := netip.ParseAddr(server); err == nil {
			h.servers = append(h.servers, netip.AddrPortFrom(a, 53))
		}
	}
	for _, domain := range c.Search[:min(len(c.Search), maxSearch)] {
		if domain = fold(domain); domain != "" {
			h.search = append(h.search, domain)
		}
	}
}
