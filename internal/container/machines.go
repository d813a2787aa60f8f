// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"time"

	agentv1 "github.com/micropod/micropod/api/agent/v1"
	"github.com/micropod/micropod/internal/container/stream"
	"github.com/micropod/micropod/internal/guest"
	"github.com/micropod/micropod/internal/image"
	"github.com/micropod/micropod/internal/machine"
	"github.com/micropod/micropod/internal/snapshot"
)

// Machines is what containers need of the machine service; see its methods there.
type Machines interface {
	// Expect tells that a container runs in the machine, and how more of the kind can be rehearsed.
	Expect(id string, warm func() *agentv1.StartContainerRequest)
	// Ready begins what a start of the spec would wait for; nil when there is nothing.
	Ready(ctx context.Context, spec machine.Spec) (making <-chan struct{})
	Create(ctx context.Context, spec machine.Spec) (machine.Info, error)
	Start(ctx context.Context, id string) error
	Stop(ctx context.Context, id string, timeout time.Duration, force bool) error
	Delete(ctx context.Context, id string, force bool) error
	Pause(ctx context.Context, id string) error
	Resume(ctx context.Context, id string) error
	Suspend(ctx context.Context, id string, idle func() bool) error
	Wake(ctx context.Context, id string) error
	Save(ctx context.Context, id string, r machine.SaveRequest) (s snapshot.Snapshot, release func(), err error)
	CreateFrom(ctx context.Context, ref string, spec machine.Spec) (machine.Info, error)
	SetEgress(ctx context.Context, id string, rules []string) error
	Get(id string) (machine.Info, error)
	Ended(id string) (<-chan struct{}, error)
	Session(ctx context.Context, id string) (Session, error)
	Stats(ctx context.Context, id string) (machine.Stats, error)
	Limit(ctx context.Context, id string, disk machine.LimitChange, drives map[string]machine.LimitChange) error
}

// Session is what containers need of a connection to an agent. Its calls and
// streams end with guest.ErrEnded when the connection does; a later one goes on.
type Session interface {
	Agent() agentv1.AgentService
	Output(ctx context.Context, container, exec string, stderr bool, offset uint64) (stream.Source, error)
	Stdin(ctx context.Context, container, exec string, offset uint64) (stream.Sink, uint64, error)
	Files(ctx context.Context, request *agentv1.FilesRequest) (FilesStream, error)
}

// Images is what containers need of the image store.
type Images interface {
	Acquire(nameOrID string) (img *image.Image, release func(), err error)
	Pull(ctx context.Context, ref string, opts image.PullOptions) (*image.Image, error)
	Prepare(ctx context.Context, nameOrID string, progress func(image.Event)) (*image.Image, error)
}

// FromMachines makes the machine service fit for ServiceConfig.
func FromMachines(s *machine.Service) Machines { return realMachines{s} }

type realMachines struct{ *machine.Service }

func (m realMachines) Session(ctx context.Context, id string) (Session, error) {
	s, err := m.Service.Session(ctx, id)
	if err != nil {
		return nil, err
	}
	return realSession{s}, nil
}

type realSession struct{ *guest.Session }

func (s realSession) Output(ctx context.Context, container, exec string, stderr bool, offset uint64) (stream.Source, error) {
	o, err := s.Session.Output(ctx, container, exec, stderr, offset)
	if err != nil {
		return nil, err
	}
	return o, nil
}

func (s realSession) Stdin(ctx context.Context, container, exec string, offset uint64) (stream.Sink, uint64, error) {
	in, taken, err := s.Session.Stdin(ctx, container, exec, offset)
	if err != nil {
		return nil, 0, err
	}
	return in, taken, nil
}

func (s realSession) Files(ctx context.Context, request *agentv1.FilesRequest) (FilesStream, error) {
	f, err := s.Session.Files(ctx, request)
	if err != nil {
		return nil, err
	}
	return f, nil
}
