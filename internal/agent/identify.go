// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/hex"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	agentv1 "github.com/micropod/micropod/api/agent/v1"
	"github.com/micropod/micropod/internal/agent/link"
)

// maxHostname is the kernel's bound (__NEW_UTS_LEN), in bytes.
const maxHostname = 64

// Identify makes the machine nobody's twin. Entropy comes first: all else is no secret.
func (s service) Identify(_ context.Context, r *agentv1.IdentifyRequest) (*agentv1.IdentifyResponse, error) {
	if err := checkIdentity(r); err != nil {
		return nil, err
	}
	links, err := linkConfigs(r.Interfaces)
	if err != nil {
		return nil, err
	}
	m := s.config.Machine
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"adding entropy", func() error { return m.AddEntropy(r.Entropy) }},
		{"setting the clock", func() error { return m.SetClock(time.Unix(0, r.UnixNanos)) }},
		{"setting the host name", func() error { return m.SetHostname(r.Hostname) }},
		{"setting the machine id", func() error { return m.SetMachineID(r.MachineId) }},
		{"configuring the network", func() error { return setLinks(m, links) }},
		{"telling processes that they are a clone's", func() error { return tellClone(m, r) }},
		{"starting the init of the user's disk", func() error { return s.startInit(r.Root) }},
	} {
		if err := step.do(); err != nil {
			return nil, status.Errorf(codes.Internal, "%s: %v", step.what, err)
		}
	}
	s.identified.Store(true)
	return &agentv1.IdentifyResponse{UnixNanos: time.Now().UnixNano()}, nil
}

// SetClock moves the clock.
func (s service) SetClock(_ context.Context, r *agentv1.SetClockRequest) (*agentv1.SetClockResponse, error) {
	if err := s.config.Machine.SetClock(time.Now().Add(time.Duration(r.AddNanos))); err != nil {
		return nil, status.Errorf(codes.Internal, "setting the clock: %v", err)
	}
	return &agentv1.SetClockResponse{UnixNanos: time.Now().UnixNano()}, nil
}

func checkIdentity(r *agentv1.IdentifyRequest) error {
	id, err := hex.DecodeString(r.MachineId)
	switch {
	case len(r.Entropy) < agentv1.MinEntropy || len(r.Entropy) > agentv1.MaxEntropy:
		return status.Errorf(codes.InvalidArgument, "%d bytes of entropy, not %d to %d", len(r.Entropy), agentv1.MinEntropy, agentv1.MaxEntropy)
	case r.UnixNanos <= 0:
		return status.Error(codes.InvalidArgument, "no time")
	case r.Hostname == "" || len(r.Hostname) > maxHostname:
		return status.Errorf(codes.InvalidArgument, "a host name of %d bytes, not 1 to %d", len(r.Hostname), maxHostname)
	case err != nil || len(id) != agentv1.MachineIDSize/2:
		return status.Errorf(codes.InvalidArgument, "%q is no machine id: %d hex digits", r.MachineId, agentv1.MachineIDSize)
	}
	return nil
}

func tellClone(m Machine, r *agentv1.IdentifyRequest) error {
	if !r.Clone {
		return nil
	}
	return m.TellClone()
}

func setLinks(m Machine, links []link.Config) error {
	for _, l := range links {
		if err := m.SetLink(l, true); err != nil {
			return err
		}
	}
	return nil
}
