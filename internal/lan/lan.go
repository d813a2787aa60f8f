// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Package lan holds the networks that users make and the places of machines in them: the records, one name
// server for each network, and what machines ask of them (it is machine.Network). How bridges, slots
// and rules are made is internal/network's; here is which, for whom and under what name.
//
// Call order: Open, which brings the host to what is on record; machine.New, which calls Keep with the
// machines that still run; then everything from any goroutine; Close, which leaves networks and machines' places
// as they are.
//
// The host is not touched before something is on record: a daemon whose containers want no
// network, or that lacks the rights for one, works without.
//
// Locks. Service.using comes first, then Service.changing, which is held while networks are made or removed, Service.mu only to read or
// assign. What belongs to one machine is changed under that machine's operation lock.
package lan

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"

	"github.com/micropod/micropod/internal/events"
	"github.com/micropod/micropod/internal/machine"
	"github.com/micropod/micropod/internal/network"
	"github.com/micropod/micropod/internal/network/dns"
	"github.com/micropod/micropod/internal/store"
)

// Config is what a Service is made from. DB, DataDir and RunDir are required.
type Config struct {
	DB      *store.DB
	DataDir string // keeps what the host's settings were before; tells daemons of one host apart
	RunDir  string // network namespaces are below
	Events  *events.Bus
	Log     *slog.Logger

	// NICs is how many network devices each machine has; 0: DefaultNICs.
	NICs int
	// Spare is how many slots are made ahead of need; 0: DefaultSpare, negative: none.
	Spare int
	// Proxy is the command that runs portproxy.Main: without one no port can be published.
	Proxy []string
	// Metadata is the command that runs mmds.Main: without one no machine can be served metadata.
	Metadata []string
	// Resolver is the host's resolver configuration; empty: dns.HostFile.
	Resolver string
}

// Defaults of Config.
const (
	DefaultNICs  = 2
	DefaultSpare = 2
)

// Service holds the networks of one daemon. Its methods may be called concurrently.
type Service struct {
	Config
	networks *store.Bucket[record]
	places   *store.Bucket[place]
	resolver *dns.Host

	changing sync.Mutex   // one change of networks at a time; also guards the making of host
	using    sync.RWMutex // read-locked by what takes a place, so that host stays; taken before changing
	host     *network.Host

	mu      sync.RWMutex // guards what follows
	open    map[string]*lan
	members map[string]*place // by machine
	byAddr  map[string]map[netip.Addr]*place
}

// lan is one network while the daemon runs.
type lan struct {
	record
	zone   *dns.Zone
	server *dns.Server // nil where it could not listen
}

var _ machine.Network = (*Service)(nil)

// Open reads the records and makes again what the host lost. Networks that cannot be made now are no error: what
// needs them is told.
func Open(c Config) (*Service, error) {
	c.NICs, c.Spare = cmp.Or(c.NICs, DefaultNICs), cmp.Or(c.Spare, DefaultSpare)
	if c.Events == nil {
		c.Events = new(events.Bus)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	s := &Service{Config: c, resolver: dns.NewHost(cmp.Or(c.Resolver, dns.HostFile))}
	s.forgetAll()
	var err error
	if s.networks, err = store.NewBucket[record](c.DB, networksBucket, recordVersion); err != nil {
		return nil, err
	}
	if s.places, err = store.NewBucket[place](c.DB, placesBucket, recordVersion); err != nil {
		return nil, err
	}
	known, unreadable, err := s.networks.All()
	if err != nil {
		return nil, err
	}
	if len(known) == 0 {
		if len(unreadable) == 0 {
			s.sweep()
		}
		return s, nil
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	if err := s.ready(); err != nil {
		s.Log.Error("bringing networks up", "error", err)
	}
	return s, nil
}

// hostDir is where network.Host has the names of its namespaces.
func (s *Service) hostDir() string { return filepath.Join(s.RunDir, "network") }

// sweep takes from the host what networks of an earlier daemon left there of which no record tells: the database was
// lost. A host that had none is not touched.
func (s *Service) sweep() {
	if _, err := os.Stat(s.hostDir()); err != nil {
		return
	}
	s.Log.Warn("removing what is left of networks that nobody knows")
	host, _, err := network.Open(network.Config{Instance: s.DataDir, RunDir: s.hostDir(), StateDir: s.DataDir, NICs: s.Config.NICs, Log: s.Log}, nil, nil)
	if err == nil {
		err = errors.Join(host.Prune(), host.Close())
	}
	if err == nil {
		err = os.RemoveAll(s.hostDir())
	}
	if err != nil {
		s.Log.Error("removing what is left of networks", "error", err)
	}
}

func (s *Service) forgetAll() {
	s.open, s.members, s.byAddr = map[string]*lan{}, map[string]*place{}, map[string]map[netip.Addr]*place{}
}

// ready brings the host to what is on record, once. changing is held. Its error is a *machine.NoNetworkError.
func (s *Service) ready() error {
	if s.host != nil {
		return nil
	}
	if err := s.bringUp(); err != nil {
		return &machine.NoNetworkError{Err: err}
	}
	return nil
}

func (s *Service) bringUp() error {
	records, unreadable, err := s.networks.All()
	if err != nil {
		return err
	}
	places, bad, err := s.places.All()
	if err != nil {
		return err
	}
	for _, u := range append(unreadable, bad...) {
		s.Log.Error("a record of the networks cannot be read", "key", u.Key, "error", u.Err)
	}
	var networks []network.Network
	for _, r := range records {
		networks = append(networks, r.Network)
	}
	var slots []network.Slot
	for _, p := range places {
		slots = append(slots, p.Slot)
	}
	host, gone, err := network.Open(network.Config{
		Instance: s.DataDir, RunDir: s.hostDir(), StateDir: s.DataDir,
		Spare: max(0, s.Spare), NICs: s.Config.NICs, Proxy: s.Proxy, Metadata: s.Metadata, Log: s.Log,
	}, networks, slots)
	if err != nil {
		return err
	}
	s.host = host
	s.load(records, places, gone)
	return nil
}

// load fills the lists and starts the name servers. Slots that are gone are forgotten: their machines ended with the host's
// restart.
func (s *Service) load(records map[string]record, places map[string]place, gone []network.Slot) {
	for _, r := range records {
		s.begin(r)
	}
	for _, g := range gone {
		for id, p := range places {
			if p.Slot.ID == g.ID {
				delete(places, id)
				if err := s.places.Delete(id); err != nil {
					s.Log.Error("forgetting a network slot", "machine", id, "error", err)
				}
			}
		}
	}
	for id, p := range places {
		if slot, there := s.host.Slot(p.Slot.ID); there && (slot.Published.Proxy != p.Slot.Published.Proxy || slot.Metadata != p.Slot.Metadata) { // they were started anew
			p.Slot = *slot
			if err := s.places.Put(id, p); err != nil {
				s.Log.Error("noting published ports", "machine", id, "error", err)
			}
		}
		s.settle(&p)
	}
}

// begin opens a network for members: its names are served from now on.
func (s *Service) begin(r record) *lan {
	l := &lan{record: r, zone: dns.NewZone()}
	var gateways []netip.Addr
	var prefixes []netip.Prefix
	for _, subnet := range r.Network.Subnets {
		gateways, prefixes = append(gateways, subnet.Gateway), append(prefixes, subnet.Prefix)
	}
	var err error
	l.server, err = dns.Start(dns.Config{
		Addrs: gateways, Clients: prefixes, Names: &view{s, r.Network.ID}, Policy: &view{s, r.Network.ID}, Log: s.Log,
		Resolvers: func(client netip.Addr) []netip.AddrPort { return s.resolversFor(r.Network, client) },
	})
	if err != nil {
		s.Log.Error("serving names", "network", r.Network.Name, "error", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[r.Network.ID] = l
	s.byAddr[r.Network.ID] = map[netip.Addr]*place{}
	return l
}

// Close ends the name servers and lets go of the host; networks and machines' places stay.
func (s *Service) Close() error {
	s.changing.Lock()
	defer s.changing.Unlock()
	var errs []error
	for _, l := range s.all() {
		if l.server != nil {
			errs = append(errs, l.server.Close())
		}
	}
	if s.host != nil {
		errs = append(errs, s.host.Close())
		s.host = nil
	}
	return errors.Join(errs...)
}

func (s *Service) all() []*lan {
	s.mu.RLock()
	defer s.mu.RUnlock()
	list := make([]*lan, 0, len(s.open))
	for _, l := range s.open {
		list = append(list, l)
	}
	return list
}

func (s *Service) publish(action string, r record, attributes map[string]string) {
	s.Events.Publish(events.Event{Type: "network", Action: action, ID: r.Network.ID, Name: r.Network.Name, Attributes: attributes})
}

// named gives the network of this name, id or unique prefix of an id.
func (s *Service) named(ref string) (*lan, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var found *lan
	for id, l := range s.open {
		switch {
		case id == ref, l.Network.Name == ref:
			return l, nil
		case len(ref) >= minPrefix && len(ref) < len(id) && id[:len(ref)] == ref:
			if found != nil {
				return nil, &AmbiguousError{Ref: ref}
			}
			found = l
		}
	}
	if found == nil {
		return nil, &NotFoundError{Ref: ref}
	}
	return found, nil
}

// minPrefix is how many digits of an id must be given at least.
const minPrefix = 2

// String is for logs.
func (l *lan) String() string { return fmt.Sprintf("%s (%s)", l.Network.Name, l.Network.Bridge) }
