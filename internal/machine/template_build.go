// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	agentv1 "github.com/micropod/micropod/api/agent/v1"
	"github.com/micropod/micropod/internal/events"
	"github.com/micropod/micropod/internal/fault"
	"github.com/micropod/micropod/internal/template"
	"github.com/micropod/micropod/internal/version"
)

// maxTemplateFailures is after how many failures a template is not tried again by itself in this daemon's life.
const maxTemplateFailures = 2

// builds are the templates being made: one of each key at a time.
type builds struct {
	mu      sync.Mutex
	running map[string]*build // by the key's id
	fails   map[string]int
}

// build is one under way. err is set when done is closed.
type build struct {
	done chan struct{}
	err  error
}

func (b *builds) gaveUp(id string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.fails[id] >= maxTemplateFailures
}

func (b *builds) failed(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fails == nil {
		b.fails = map[string]int{}
	}
	b.fails[id]++
}

// join gives the build of this id, and whether it is the caller's to carry out.
func (b *builds) join(id string) (one *build, first bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if one := b.running[id]; one != nil {
		return one, false
	}
	if b.running == nil {
		b.running = map[string]*build{}
	}
	one = &build{done: make(chan struct{})}
	b.running[id] = one
	return one, true
}

func (b *builds) finish(id string, one *build, err error) {
	if err != nil && !errors.Is(err, ErrShutdown) {
		b.failed(id)
	}
	b.mu.Lock()
	delete(b.running, id)
	b.mu.Unlock()
	one.err = err
	close(one.done)
}

// build makes the template of the key, or waits for it being made. It goes on when ctx ends.
func (s *Service) build(ctx context.Context, k template.Key, spec Spec) error {
	one, first := s.builds.join(k.ID())
	if first {
		leave, err := s.enter()
		if err != nil {
			s.builds.finish(k.ID(), one, err)
			return err
		}
		go func() {
			defer leave()
			s.builds.finish(k.ID(), one, s.makeTemplate(s.life, k, spec))
		}()
	}
	select {
	case <-one.done:
		return one.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// makeTemplate boots a machine of the daemon's own, has it prepared, and saves it.
func (s *Service) makeTemplate(ctx context.Context, k template.Key, spec Spec) (err error) {
	defer func() {
		if s.life.Err() != nil {
			err = errors.Join(ErrShutdown, err)
		} else if err != nil {
			err = fmt.Errorf("making template %s: %w", k.ID(), err)
		}
	}()
	began := time.Now()
	s.Log.Info("making a template", "template", k.ID(), "engine", k.Engine, "vcpus", k.VCPUs, "memory", k.Memory)
	draft, err := s.Templates.Begin(k)
	if err != nil {
		return err
	}
	note, err := s.saveBlank(ctx, spec, draft.Snapshot())
	if err != nil {
		draft.Discard()
		return err
	}
	fault.Point("template: saved")
	if err := draft.Commit(ctx, note); err != nil {
		return err
	}
	fault.Point("template: kept")
	s.Log.Info("template made", "template", k.ID(), "took", time.Since(began).Round(time.Millisecond))
	s.Events.Publish(events.Event{Time: time.Now(), Type: "template", Action: "build", ID: k.ID()})
	_, err = s.Templates.Prune(s.TemplateBounds, func(*template.Template) bool { return true })
	return err
}

// saveBlank boots a machine without drives and saves it to dir. Nothing is left of it.
func (s *Service) saveBlank(ctx context.Context, spec Spec, dir string) (note template.Note, err error) {
	blank, err := s.complete(ctx, shape(spec))
	if err != nil {
		return note, err
	}
	m, err := s.reserve(blank, true)
	if err != nil {
		return note, err
	}
	defer func() { err = errors.Join(err, m.removeHidden()) }()
	ctx, end, err := m.begin(ctx)
	if err != nil {
		return note, err
	}
	defer end()
	if err := errors.Join(m.change(Stopped, "create", nil), m.change(Starting, "start", nil)); err != nil {
		return note, err
	}
	b := &boot{machine: m, run: newRun(), spec: blank, blank: true}
	m.mu.Lock()
	m.run = b.run
	m.mu.Unlock()
	if err := b.do(ctx); err != nil {
		return note, err
	}
	fault.Point("template: machine runs")
	err = b.save(ctx, dir)
	return template.Note{TSCKHz: b.files.TSCKHz, Version: version.Version}, errors.Join(err, m.stopping("save"), m.kill(b.run, "saved"))
}

// save has the agent make ready what the next container needs, and takes the snapshot.
func (b *boot) save(ctx context.Context, dir string) error {
	session, err := b.run.link.await(ctx, b.run)
	if err != nil {
		return err
	}
	if _, err := session.Agent().Prepare(ctx, &agentv1.PrepareRequest{}); err != nil {
		return err
	}
	// Saved in a session, each restored guest would take that apart first, with code that runs for the first time then.
	b.run.link.rest()
	if err := b.run.vm.Pause(ctx); err != nil {
		return fmt.Errorf("pausing the machine: %w", err)
	}
	if err := b.run.vm.Snapshot(ctx, dir); err != nil {
		return fmt.Errorf("saving the machine: %w", err)
	}
	return nil
}
