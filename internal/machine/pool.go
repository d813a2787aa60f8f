// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	agentv1 "github.com/micropod/micropod/api/agent/v1"
)

// The pool holds machines that were restored ahead of need, have the image's drive in its slot, and have run and
// discarded a container: in software emulation all code that runs for the first time after a restore is
// translated anew, so a second container takes a tenth of the first one's time. What the next container has as its root is
// mounted. They are hidden machines; Start takes one over with its disk and gives it the identity of the machine that it becomes.
//
// How many: for each shape (size and image) as many as were started of it in the busiest poolBurst of the last
// poolMemory, at least Pool.Min for the shape that was started last, and no more than Pool.Max, nor than
// fit into Pool.Bytes, of all shapes together. A shape that was not started for poolMemory has none.
//
// A machine of the pool that is to have a network has joined the default one ahead, with an address and a hardware
// address of its own, and hands its place on: a VMM cannot change its network namespace. Machines that join others, or ask for addresses,
// are not taken from the pool.

const (
	poolBurst  = 2 * time.Second  // about what it takes to make two machines beside other work
	poolMemory = 10 * time.Minute // how long a burst is remembered
	poolTick   = 30 * time.Second // how often machines that are not wanted any more are looked for

	// A machine is made when nothing was started for poolPatience, so as not to take the processors from a start and
	// what it runs, or when one was wanted for poolDelay.
	poolPatience = 500 * time.Millisecond
	poolDelay    = 3 * time.Second

	// poolMachineBytes is what one is taken to need of the host's memory beside the template's: QEMU's own,
	// translated code, pages that the guest changed.
	poolMachineBytes = 64 << 20

	maxPoolStarts   = 256 // remembered of a shape
	maxPoolShapes   = 64
	maxPoolFailures = 3 // in a row, then a shape has no pool until the daemon is restarted
)

// PoolBounds say how many machines are kept ready. The zero value: none.
type PoolBounds struct {
	Min, Max int
	Bytes    int64 // of memory; 0: unbounded
}

// pool is guarded by mu.
type pool struct {
	mu      sync.Mutex
	shapes  map[string]*poolShape
	last    *poolShape // that was started last
	started time.Time  // when
	filling bool       // a goroutine makes machines
}

// poolShape is machines that can stand in for each other.
type poolShape struct {
	spec     Spec
	warm     *agentv1.StartContainerRequest
	starts   []time.Time // the oldest first
	ready    []*machine
	failures int
}

// poolKey names the shape of a spec; empty for one that the pool cannot serve.
func (s *Service) poolKey(spec Spec) string {
	joins := spec.Network.Joins
	if !spec.usual() || spec.Image == "" || len(joins) > 1 || !spec.DiskLimit.IsZero() ||
		spec.Log != "" || spec.Metrics != "" || len(spec.Network.Egress) > 0 || spec.Network.Metadata != nil {
		return ""
	}
	network := ""
	for _, j := range joins {
		if network = j.Network; network != cmp.Or(s.DefaultNetwork, DefaultNetwork) || len(j.Addrs) > 0 || len(j.MAC) > 0 || j.Limits != (RateLimits{}) {
			return ""
		}
	}
	return fmt.Sprintf("%s %d %d %d %s %s", spec.Engine, spec.VCPUs, spec.Memory, spec.ScratchBytes, network, spec.Image)
}

// poolSpec is what a machine of the pool is made of for starts like this one.
func poolSpec(s Spec) Spec {
	s.ID, s.Name, s.Hostname, s.Labels, s.Annotations = "", "", "", nil, nil
	s.Network = NetworkSpec{None: s.Network.None, Joins: slices.Clone(s.Network.Joins)}
	for i := range s.Network.Joins {
		s.Network.Joins[i].Aliases = nil
	}
	return s
}

// Expect notes that a container was started in the machine, and that more may be of the same kind: warm is a
// container of that kind that does nothing, for machines of the pool to run. It is called for each start.
func (s *Service) Expect(id string, warm func() *agentv1.StartContainerRequest) {
	m, err := s.find(id)
	if err != nil || s.Pool.Max <= 0 {
		return
	}
	spec := m.record().Spec
	key := s.poolKey(spec)
	if key == "" {
		return
	}
	now := time.Now()
	s.pool.mu.Lock()
	defer s.pool.mu.Unlock()
	shape := s.pool.shapes[key]
	if shape == nil {
		if len(s.pool.shapes) >= maxPoolShapes {
			return // until the tick has forgotten some
		}
		if s.pool.shapes == nil {
			s.pool.shapes = map[string]*poolShape{}
		}
		shape = &poolShape{spec: poolSpec(spec), warm: warm()}
		s.pool.shapes[key] = shape
	}
	shape.starts = append(shape.starts, now)
	if len(shape.starts) > maxPoolStarts {
		shape.starts = slices.Delete(shape.starts, 0, 1)
	}
	s.pool.last, s.pool.started = shape, now
	s.startFilling()
}

// wanted is the forecast: see above. pool.mu is held.
func (p *pool) wanted(shape *poolShape, now time.Time, b PoolBounds) int {
	if shape.failures >= maxPoolFailures {
		return 0
	}
	first := 0
	for first < len(shape.starts) && now.Sub(shape.starts[first]) > poolMemory {
		first++
	}
	shape.starts = shape.starts[first:]
	most, from := 0, 0
	for to, at := range shape.starts {
		for at.Sub(shape.starts[from]) > poolBurst {
			from++
		}
		most = max(most, to-from+1)
	}
	if shape == p.last {
		most = max(most, b.Min)
	}
	return min(most, b.Max)
}

// room says whether one more machine is within the bounds. pool.mu is held.
func (p *pool) room(b PoolBounds) bool {
	n := 1
	for _, shape := range p.shapes {
		n += len(shape.ready)
	}
	return n <= b.Max && (b.Bytes == 0 || int64(n)*poolMachineBytes <= b.Bytes)
}

// next is a shape that wants one more machine, the last started one first. pool.mu is held.
func (p *pool) next(now time.Time, b PoolBounds) *poolShape {
	if !p.room(b) {
		return nil
	}
	if p.last != nil && len(p.last.ready) < p.wanted(p.last, now, b) {
		return p.last
	}
	for _, shape := range p.shapes {
		if len(shape.ready) < p.wanted(shape, now, b) {
			return shape
		}
	}
	return nil
}

// startFilling has one goroutine make what is wanted, one machine after the other. pool.mu is held.
func (s *Service) startFilling() {
	if s.pool.filling {
		return
	}
	leave, err := s.enter()
	if err != nil {
		return
	}
	s.pool.filling = true
	go func() {
		defer leave()
		s.fill()
	}()
}

func (s *Service) fill() {
	for {
		s.waitForCalm()
		s.pool.mu.Lock()
		shape := s.pool.next(time.Now(), s.Pool)
		if shape == nil || s.life.Err() != nil {
			s.pool.filling = false
			s.pool.mu.Unlock()
			return
		}
		s.pool.mu.Unlock()
		m, err := s.makeReady(s.life, shape)
		s.pool.mu.Lock()
		if err == nil {
			shape.ready, shape.failures = append(shape.ready, m), 0
		} else if s.life.Err() == nil {
			shape.failures++
			s.Log.Warn("making a machine of the pool", "image", shape.spec.Image, "error", err)
		}
		s.pool.mu.Unlock()
	}
}

// waitForCalm returns when machines may be made: see poolPatience.
func (s *Service) waitForCalm() {
	for began := time.Now(); time.Since(began) < s.poolDelay; {
		s.pool.mu.Lock()
		calm := time.Since(s.pool.started)
		s.pool.mu.Unlock()
		if calm >= s.poolPatience || s.life.Err() != nil {
			return
		}
		sleep(s.life, s.poolPatience-calm)
	}
}

// makeReady makes a machine of the pool. On error nothing is left of it.
func (s *Service) makeReady(ctx context.Context, shape *poolShape) (m *machine, err error) {
	spec, err := s.complete(ctx, shape.spec)
	if err != nil {
		return nil, err
	}
	if m, err = s.reserve(spec, true); err != nil {
		return nil, err
	}
	ctx, end, err := m.begin(ctx)
	if err != nil {
		s.forget(m)
		return nil, err
	}
	defer end()
	defer func() {
		if err != nil {
			err = errors.Join(err, m.discard())
		}
	}()
	if err := os.MkdirAll(s.diskDir(m.id), 0o700); err != nil {
		return m, err
	}
	if err := m.makeDisk(ctx, nil); err != nil {
		return m, err
	}
	if err := errors.Join(m.change(Stopped, "create", nil), m.change(Starting, "start", nil)); err != nil {
		return m, err
	}
	b := &boot{machine: m, run: newRun(), spec: spec}
	m.mu.Lock()
	m.run = b.run
	m.mu.Unlock()
	if err := b.do(ctx); err != nil {
		return m, err
	}
	return m, b.rehearse(ctx, shape.warm)
}

// rehearseLimit bounds the container that a machine of the pool runs.
const rehearseLimit = 20 * time.Second

// rehearse runs a container to its end and discards it.
func (b *boot) rehearse(ctx context.Context, warm *agentv1.StartContainerRequest) error {
	ctx, cancel := context.WithTimeout(ctx, rehearseLimit)
	defer cancel()
	session, err := b.run.link.await(ctx, b.run)
	if err != nil {
		return err
	}
	agent := session.Agent()
	if _, err := agent.StartContainer(ctx, warm); err != nil {
		return fmt.Errorf("running a container ahead: %w", err)
	}
	for _, stderr := range []bool{false, true} {
		if o, err := session.Output(ctx, warm.Id, "", stderr, 0); err == nil {
			_, _ = o.Read(make([]byte, 1)) // its end
			_ = o.Close()
		}
	}
	if _, err := agent.Wait(ctx, &agentv1.WaitRequest{ContainerId: warm.Id}); err != nil {
		return fmt.Errorf("running a container ahead: %w", err)
	}
	if _, err := agent.DeleteContainer(ctx, &agentv1.DeleteContainerRequest{Id: warm.Id}); err != nil {
		return fmt.Errorf("discarding the container run ahead: %w", err)
	}
	if _, err := agent.Prepare(ctx, &agentv1.PrepareRequest{Rootfs: warm.Rootfs}); err != nil {
		return fmt.Errorf("mounting the next container's root ahead: %w", err)
	}
	return nil
}

// discard ends a hidden machine and removes all of it. Its operation lock is held, or nobody knows it any more.
func (m *machine) discard() error {
	var err error
	if r := m.current(); r != nil {
		err = errors.Join(m.stopping("discard"), m.kill(r, "discarded"))
	}
	m.s.forget(m)
	return errors.Join(err, m.removeFolders())
}

// take gives a machine of the pool that runs, or nil.
func (s *Service) take(spec Spec) *machine {
	key := s.poolKey(spec)
	if s.Pool.Max <= 0 || key == "" {
		return nil
	}
	s.pool.mu.Lock()
	defer s.pool.mu.Unlock()
	shape := s.pool.shapes[key]
	if shape == nil {
		return nil
	}
	for n := len(shape.ready); n > 0; n = len(shape.ready) {
		m := shape.ready[n-1]
		shape.ready = shape.ready[:n-1]
		if m.state() == Running {
			return m
		}
		s.detachDiscard(m)
	}
	return nil
}

// detachDiscard discards a machine that is in no list any more, in the background.
func (s *Service) detachDiscard(m *machine) {
	leave, err := s.enter()
	if err != nil {
		return // Shutdown ends it
	}
	go func() {
		defer leave()
		_, end, err := m.begin(s.life)
		if err != nil {
			return
		}
		defer end()
		if err := m.discard(); err != nil {
			s.Log.Warn("discarding a machine of the pool", "machine", m.id, "error", err)
		}
	}()
}

// tend takes machines out of the pool that are not wanted any more, until life ends.
func (s *Service) tend() {
	for sleep(s.life, poolTick); s.life.Err() == nil; sleep(s.life, poolTick) {
		s.thin(time.Now())
	}
}

func (s *Service) thin(now time.Time) {
	s.pool.mu.Lock()
	defer s.pool.mu.Unlock()
	for key, shape := range s.pool.shapes {
		shape.ready = slices.DeleteFunc(shape.ready, func(m *machine) bool {
			dead := m.state() != Running
			if dead {
				s.detachDiscard(m)
			}
			return dead
		})
		for want := s.pool.wanted(shape, now, s.Pool); len(shape.ready) > want; {
			s.detachDiscard(shape.ready[0])
			shape.ready = shape.ready[1:]
		}
		if len(shape.starts) == 0 && len(shape.ready) == 0 && shape != s.pool.last && shape.failures < maxPoolFailures {
			delete(s.pool.shapes, key)
		}
	}
	s.startFilling()
}

// PoolReady counts the machines that are kept ready.
func (s *Service) PoolReady() (n int) {
	s.pool.mu.Lock()
	defer s.pool.mu.Unlock()
	for _, shape := range s.pool.shapes {
		n += len(shape.ready)
	}
	return n
}
