// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/micropod/micropod/internal/fault"
	"github.com/micropod/micropod/internal/image"
	"github.com/micropod/micropod/internal/machine"
	"github.com/micropod/micropod/internal/undo"
)

// Create makes a container: its image is there, its machine made and stopped. progress
// may be nil. Warnings tell what is carried out otherwise than asked. On error,
// or when ctx ends before, nothing is left.
func (s *Service) Create(ctx context.Context, c Config, progress func(image.Event)) (info Info, warnings []string, err error) {
	leave, err := s.enter()
	if err != nil {
		return Info{}, nil, err
	}
	defer leave()
	ctx, cancel := s.bind(ctx)
	defer cancel(nil)
	if c, err = c.complete(); err == nil {
		err = s.checkIdleTimeout(c.IdleTimeout)
	}
	if err != nil {
		return Info{}, nil, err
	}
	r := record{ID: newID(), Config: c, State: Creating, Created: time.Now().UTC()}
	r.MachineID = r.ID[:machineIDLength]
	if r.Config.Name, err = s.reserve(r.ID, c.Name); err != nil {
		return Info{}, nil, err
	}
	var u undo.Stack
	u.Add("giving back the name", func(context.Context) error { s.release(r.Config.Name); return nil })
	e, warnings, err := s.make(ctx, r, progress, &u)
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return Info{}, nil, withUndo(err, u.Run(ctx))
	}
	u.Release()
	s.mu.Lock()
	s.entries[e.id] = e
	s.mu.Unlock()
	e.publish("create", map[string]string{"image": c.Image})
	return e.info(), warnings, nil
}

// bind returns a context that also ends with the service.
func (s *Service) bind(ctx context.Context) (context.Context, context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(s.life, func() { cancel(ErrShutdown) })
	return ctx, func(cause error) { stop(); cancel(cause) }
}

// withUndo adds what could not be taken back to an error, if anything.
func withUndo(err, undone error) error {
	if undone == nil {
		return err
	}
	return fmt.Errorf("%w; and taking it back: %w", err, undone)
}

// make carries out Create's steps. The record goes before what it stands for: a daemon
// that dies in between finds it in state Creating and removes the rest.
func (s *Service) make(ctx context.Context, r record, progress func(image.Event), u *undo.Stack) (*entry, []string, error) {
	making := s.Machines.Ready(ctx, r.machineSpec("")) // beside the pull
	img, release, err := s.resolve(ctx, r.Config, progress)
	if err != nil {
		return nil, nil, err
	}
	defer release()
	s.awaitReady(ctx, making, progress)
	r.Config.Auth = nil
	r.ImageID, r.Image = img.ID.String(), img.Config.Config
	r.Config.Health = r.Config.Health.over(img.Health)
	if err := r.Config.Health.check(); err != nil {
		return nil, nil, err
	}
	bundle, err := r.bundle(machine.Info{}, 0, 0)
	if err != nil {
		return nil, nil, err
	}
	r.Args = bundle.Spec.Process.Args
	e := s.newEntry(r)
	u.Add("removing the record", func(context.Context) error { return s.records.Delete(r.ID) })
	if err := s.records.Put(r.ID, r); err != nil {
		return nil, nil, err
	}
	fault.Point("create: recorded")
	u.Add("removing the folder", func(context.Context) error { return os.RemoveAll(s.folder(r.ID)) })
	if err := os.MkdirAll(s.folder(r.ID), 0o700); err != nil {
		return nil, nil, fmt.Errorf("making the folder of container %q: %w", r.Config.Name, err)
	}
	fault.Point("create: folder made")
	u.Add("removing the machine", func(ctx context.Context) error { return s.deleteMachine(ctx, r.MachineID) })
	if _, err := s.Machines.Create(ctx, r.machineSpec(img.RootFS)); err != nil {
		return nil, nil, fmt.Errorf("making the machine of container %q: %w", r.Config.Name, err)
	}
	fault.Point("create: machine made")
	return e, bundle.Warnings, e.change(Created, "create", nil)
}

// awaitReady waits for what the start would wait for, since here its progress can be told.
func (s *Service) awaitReady(ctx context.Context, making <-chan struct{}, progress func(image.Event)) {
	if making == nil {
		return
	}
	tell := func(state image.State) {
		if progress != nil {
			progress(image.Event{ID: "machine", State: state})
		}
	}
	tell("making a template, once for this size")
	defer tell(image.StateDone)
	again := time.NewTicker(time.Second) // a client shows nothing of what is over sooner
	defer again.Stop()
	for {
		select {
		case <-making:
			return
		case <-ctx.Done():
			return
		case <-again.C:
			tell("making a template, once for this size")
		}
	}
}

// deleteMachine removes a machine in whatever state; one that is not there is no error.
func (s *Service) deleteMachine(ctx context.Context, id string) error {
	err := s.Machines.Delete(ctx, id, true)
	var gone *machine.NotFoundError
	if errors.As(err, &gone) {
		return nil
	}
	return err
}

// reserve takes a name, making one up when it is empty.
func (s *Service) reserve(id, name string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if name != "" {
		if owner, taken := s.names[name]; taken {
			return "", &NameInUseError{Name: name, Owner: owner}
		}
	}
	for try := 0; name == ""; try++ {
		candidate := randomName(try)
		if _, taken := s.names[candidate]; !taken {
			name = candidate
		}
	}
	s.names[name] = id
	return name, nil
}

func (s *Service) release(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.names, name)
}

// idBytes is the length of an id, written as hex digits.
const idBytes = 32

// newID is 64 hex digits, of which no 12 and no 16 first are another's in practice.
func newID() string {
	b := make([]byte, idBytes)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return hex.EncodeToString(b)
}
