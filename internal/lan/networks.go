// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package lan

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"regexp"
	"slices"
	"time"

	"github.com/micropod/micropod/internal/machine"
	"github.com/micropod/micropod/internal/network"
)

// Request says what network to make.
type Request struct {
	Name     string           // required
	Subnets  []network.Subnet // none: chosen, apart from those that the host has routes to
	NoIPv6   bool             // of the chosen ones
	Internal bool             // no way out and none in
	MTU      int              // 0: that of the host's way out
	Labels   map[string]string
}

var nameForm = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}$`)

// reserved names mean something else than a network, here or to those who know Docker.
var reserved = []string{"none", "host", "bridge", "default", "container"}

// Bounds of a Request.
const (
	minMTU        = 1280 // what IPv6 needs (RFC 8200)
	maxMTU        = 65521
	maxLabelBytes = 256 << 10
)

func (r *Request) check() error {
	switch {
	case !nameForm.MatchString(r.Name):
		return &InvalidError{What: "network name " + r.Name[:min(len(r.Name), 64)], Reason: "it is not made of 1 to 63 letters, digits, _, . and -, a letter or digit first"}
	case slices.Contains(reserved, r.Name):
		return &InvalidError{What: "network name " + r.Name, Reason: "it is taken for something else", Hint: "choose another name"}
	case r.MTU != 0 && (r.MTU < minMTU || r.MTU > maxMTU):
		return &InvalidError{What: "MTU", Reason: "it is not between 1280 and 65521"}
	}
	total := 0
	for k, v := range r.Labels {
		total += len(k) + len(v)
	}
	if total > maxLabelBytes {
		return &InvalidError{What: "labels", Reason: "they are longer than 256 KiB"}
	}
	return nil
}

// Create makes a network. Errors: *InvalidError, *ExistsError, *network.AddressError, *machine.NoNetworkError.
func (s *Service) Create(ctx context.Context, r Request) (Info, error) {
	if err := r.check(); err != nil {
		return Info{}, err
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	if err := s.ready(); err != nil {
		return Info{}, err
	}
	l, err := s.create(r)
	if err != nil {
		return Info{}, err
	}
	return s.info(l), ctx.Err()
}

// create makes a network; changing is held. The host's part goes first: what is not on record is swept away.
func (s *Service) create(r Request) (*lan, error) {
	if l, err := s.named(r.Name); err == nil && l.Network.Name == r.Name {
		return nil, &ExistsError{Name: r.Name}
	}
	id := make([]byte, 8)
	_, _ = rand.Read(id) // never fails (crypto/rand)
	n, err := s.host.CreateNetwork(network.NetworkRequest{
		ID: hex.EncodeToString(id), Name: r.Name, Subnets: r.Subnets, NoIPv6: r.NoIPv6, Internal: r.Internal, MTU: r.MTU,
	})
	if err != nil {
		return nil, err
	}
	rec := record{Network: n, Labels: r.Labels, Created: time.Now().UTC()}
	if err := s.networks.Put(n.ID, rec); err != nil {
		return nil, errors.Join(err, s.host.DeleteNetwork(n.ID))
	}
	l := s.begin(rec)
	s.publish("create", rec, nil)
	return l, nil
}

// get finds a network, and makes the default one if it is meant and not there yet.
func (s *Service) get(name string) (*lan, error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	if err := s.ready(); err != nil {
		return nil, err
	}
	l, err := s.named(name)
	if err != nil && name == machine.DefaultNetwork {
		return s.create(Request{Name: name})
	}
	return l, err
}

// Get finds a network by name, id or unique prefix of an id. Errors: *NotFoundError, *AmbiguousError.
func (s *Service) Get(ref string) (Info, error) {
	l, err := s.named(ref)
	if err != nil {
		return Info{}, err
	}
	return s.info(l), nil
}

// List tells of all networks, by name.
func (s *Service) List() []Info {
	list := []Info{}
	for _, l := range s.all() {
		list = append(list, s.info(l))
	}
	slices.SortFunc(list, func(a, b Info) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

func (s *Service) info(l *lan) Info {
	n := l.Network
	i := Info{
		ID: n.ID, Name: n.Name, Bridge: n.Bridge, Subnets: n.Subnets, Internal: n.Internal, MTU: n.MTU,
		Labels: l.Labels, Created: l.Created,
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, p := range s.members {
		if p.Ready {
			continue
		}
		for _, e := range s.endpoints(p) {
			if e.NetworkID == n.ID {
				i.Members = append(i.Members, Member{Machine: p.Machine, Endpoint: e})
			}
		}
	}
	slices.SortFunc(i.Members, func(a, b Member) int { return cmp.Compare(a.Machine, b.Machine) })
	return i
}

// Remove removes a network that no machine is in. Errors: *NotFoundError, *AmbiguousError, *InUseError.
func (s *Service) Remove(ref string) (Info, error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	l, err := s.named(ref)
	if err != nil {
		return Info{}, err
	}
	return s.info(l), s.remove(l)
}

func (s *Service) remove(l *lan) error {
	if i := s.info(l); len(i.Members) > 0 {
		return inUse(i)
	}
	if err := s.host.DeleteNetwork(l.Network.ID); err != nil {
		if errors.Is(err, network.ErrNetworkInUse) { // by a machine that is just joining
			return &InUseError{Name: l.Network.Name, Machines: []string{"one that is starting or kept ready"}}
		}
		return err
	}
	if err := s.networks.Delete(l.Network.ID); err != nil {
		return err
	}
	s.mu.Lock()
	delete(s.open, l.Network.ID)
	delete(s.byAddr, l.Network.ID)
	s.mu.Unlock()
	s.publish("remove", l.record, nil)
	if l.server != nil {
		return l.server.Close()
	}
	return nil
}

func inUse(i Info) error {
	e := &InUseError{Name: i.Name}
	for _, m := range i.Members {
		e.Machines = append(e.Machines, m.Machine)
	}
	return e
}

// Prune removes all networks that no machine is in, other than the default one, and tells which.
func (s *Service) Prune() ([]Info, error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	return s.prune(func(i Info) bool { return i.Name == machine.DefaultNetwork })
}

// PruneHost does as Prune, and if no machine is in any network it takes the default one and all that was changed on the
// host, too. The next machine that joins a network brings that back, so the default one is not told of: for users it is always there.
func (s *Service) PruneHost() ([]Info, error) {
	s.using.Lock()
	defer s.using.Unlock()
	s.changing.Lock()
	defer s.changing.Unlock()
	s.mu.RLock()
	idle := len(s.members) == 0
	s.mu.RUnlock()
	isDefault := func(i Info) bool { return i.Name == machine.DefaultNetwork }
	removed, err := s.prune(func(i Info) bool { return !idle && isDefault(i) })
	removed = slices.DeleteFunc(removed, isDefault)
	if !idle || s.host == nil || err != nil {
		return removed, err
	}
	err = errors.Join(s.host.Prune(), s.host.Close())
	s.host = nil
	return removed, err
}

// prune removes networks that no machine is in, but for some; changing is held.
func (s *Service) prune(keep func(Info) bool) ([]Info, error) {
	var removed []Info
	var errs []error
	for _, i := range s.List() {
		if len(i.Members) > 0 || keep(i) {
			continue
		}
		l, err := s.named(i.ID)
		if err == nil {
			err = s.remove(l)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		removed = append(removed, i)
	}
	return removed, errors.Join(errs...)
}
