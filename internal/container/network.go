// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	imagespec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/micropod/micropod/internal/container/ocispec"
	"github.com/micropod/micropod/internal/machine"
)

// Network is what a user asks of the network for a container.
type Network struct {
	Joins []machine.Join // none: the default network; NoNetwork, alone: loopback only
	Ports []machine.Port // published
	// PublishAll publishes what the image exposes, and Expose, on free ports of the host.
	PublishAll bool
	Expose     []string // PORT[-PORT][/tcp|udp]
	Egress     []string // where it may begin connections to: see machine.NetworkSpec
	Metadata   []byte   // likewise, as it was when the container was made
}

// NoNetwork is the name to join for loopback only.
const NoNetwork = "none"

// maxExposed bounds how many ports one range of --expose may hold.
const maxExposed = 1024

// machineNetwork is what the container's machine asks of the network.
func (r *record) machineNetwork() machine.NetworkSpec {
	n := r.Config.Network
	spec := machine.NetworkSpec{Joins: n.Joins, Ports: n.Ports, Names: r.names(), Egress: n.Egress, Metadata: n.Metadata}
	if n.none() {
		return machine.NetworkSpec{None: true, Ports: n.Ports, Metadata: n.Metadata} // which the machine refuses
	}
	if n.PublishAll {
		spec.Ports = append(slices.Clone(n.Ports), exposed(r.Image, n)...)
	}
	for _, server := range r.Config.DNS {
		if a, err := netip.ParseAddr(server); err == nil { // checked with the specification
			spec.Resolvers = append(spec.Resolvers, netip.AddrPortFrom(a, 53))
		}
	}
	return spec
}

// names are those by which other containers find this one.
func (r *record) names() []string {
	list := []string{r.Config.Name, r.ID[:12]}
	if h := r.Config.Hostname; h != "" && !slices.Contains(list, h) {
		list = append(list, h)
	}
	return list
}

// exposed lists the ports to publish that the user did not publish already.
func exposed(image imagespec.ImageConfig, n Network) []machine.Port {
	var texts []string
	for text := range image.ExposedPorts {
		texts = append(texts, text)
	}
	slices.Sort(texts)
	have := slices.Clone(n.Ports)
	var out []machine.Port
	for _, text := range append(texts, n.Expose...) {
		ports, err := parseExposed(text)
		if err != nil {
			continue // the image's may be anything; the user's are checked
		}
		for _, p := range ports {
			same := func(other machine.Port) bool { return other.GuestPort == p.GuestPort && other.Protocol == p.Protocol }
			if !slices.ContainsFunc(have, same) {
				have, out = append(have, p), append(out, p)
			}
		}
	}
	return out
}

// parseExposed reads PORT[-PORT][/tcp|udp].
func parseExposed(text string) ([]machine.Port, error) {
	ports, protocol, given := strings.Cut(text, "/")
	if !given {
		protocol = "tcp"
	}
	first, last, isRange := strings.Cut(ports, "-")
	if !isRange {
		last = first
	}
	from, err := strconv.ParseUint(first, 10, 16)
	to, errLast := strconv.ParseUint(last, 10, 16)
	if err != nil || errLast != nil || from == 0 || to < from || to-from >= maxExposed || protocol != "tcp" && protocol != "udp" {
		return nil, &InvalidError{Field: "--expose", Value: text[:min(len(text), 64)], Reason: "is no port", Hint: "write PORT[-PORT][/tcp|udp]"}
	}
	var list []machine.Port
	for p := from; p <= to; p++ {
		list = append(list, machine.Port{GuestPort: uint16(p), Protocol: protocol})
	}
	return list, nil
}

// elsewhere is what a copy of the container can have beside it: what one alone can have stays with that.
func (n Network) elsewhere() Network {
	joins := slices.Clone(n.Joins)
	for i := range joins {
		joins[i].Addrs, joins[i].MAC = nil, nil
	}
	next := Network{Joins: joins, Egress: n.Egress}
	if n.Metadata != nil { // told to one machine, not to its copies, which begin with nothing
		next.Metadata = []byte("{}")
	}
	return next
}

func (n Network) none() bool { return len(n.Joins) == 1 && n.Joins[0].Network == NoNetwork }

func (n Network) check() error {
	for _, j := range n.Joins {
		if j.Network == NoNetwork && len(n.Joins) > 1 {
			return &InvalidError{Field: "--network", Value: NoNetwork, Reason: "cannot be combined with other networks"}
		}
	}
	for _, text := range n.Expose {
		if _, err := parseExposed(text); err != nil {
			return err
		}
	}
	return nil
}

// SetEgress changes where a container may begin connections to, at once if it runs. Errors: *NotFoundError, those of
// the rules.
func (s *Service) SetEgress(ctx context.Context, ref string, rules []string) (Info, error) {
	e, err := s.find(ref)
	if err != nil {
		return Info{}, err
	}
	ctx, end, err := e.begin(ctx)
	if err != nil {
		return Info{}, err
	}
	defer end()
	if err := s.Machines.SetEgress(ctx, e.record().MachineID, rules); err != nil {
		return Info{}, err
	}
	if err := e.edit(func(r *record) { r.Config.Network.Egress = rules }); err != nil {
		return Info{}, fmt.Errorf("changing container %q: %w", e.name(), err)
	}
	e.publish("update", nil)
	return e.info(), nil
}

// networkOf is what a container is told of its machine's networks; nil before the machine runs.
func networkOf(m machine.Info) *ocispec.Network {
	if m.State != machine.Running {
		return nil
	}
	n := &ocispec.Network{}
	j := m.Joined
	if j == nil {
		return n
	}
	n.Resolvers, n.Search, n.HostGateway = j.Resolvers, j.Search, j.HostGateway
	for _, e := range j.Endpoints {
		for _, a := range e.Addrs {
			n.Addresses = append(n.Addresses, a.Addr())
		}
	}
	return n
}
