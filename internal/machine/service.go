// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Package machine is the core: it makes, starts, stops and removes microVMs,
// watches over those that run, and takes them over again after a restart of the daemon.
//
// Call order: New (which adopts what runs), then Create, Start, Session, Stop,
// Delete from any goroutine, Shutdown at the end, which lets the machines go on.
//
// State. state.go draws the states and holds the table of changes. machine.change
// and machine.settle are the only places that change one; each change is stored, then
// published as an event.
//
// Who changes a machine. Each has an operation lock (machine.op): Create, Start,
// Stop, Delete and the supervisor take it and so come one after the other. Delete by force and
// Stop first interrupt what holds it. Fields of machine are guarded by machine.mu,
// held only to read or assign them, never while waiting. Lock order: Service.mu,
// then machine.mu; machine.op before both.
//
// Goroutines. A machine that runs has a supervisor, which waits for its VMM's
// end, a link, which keeps the guest channel connected, and a pulse, which notices a guest that hangs. All end
// with the run or with Shutdown, which waits for them.
//
// The VMM process belongs to no goroutine: it outlives the daemon, and its
// record (vmm.Record) is stored as soon as it runs.
//
// internal/server, internal/container and internal/cri use it; nothing below imports it.
package machine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/events"
	"github.com/micropod/micropod/internal/snapshot"
	"github.com/micropod/micropod/internal/store"
	"github.com/micropod/micropod/internal/template"
	"github.com/micropod/micropod/internal/vmm"
)

// Config is what a Service is made from.
type Config struct {
	Engines []vmm.Engine // required
	// Auto names the engine that "auto" means, for a machine that is to run virtual machines itself or not. Nil: the first. It
	// may take some seconds, once in a host's boot.
	Auto func(ctx context.Context, nested bool) string
	DB   *store.DB  // required
	Boot BootSource // required
	// MakeDisk makes a machine's empty ext4 disk of size bytes at path. Required.
	MakeDisk func(ctx context.Context, path string, size int64) error

	Network Network // nil: machines have loopback only
	// DefaultNetwork is what machines join that ask for none; empty: DefaultNetwork, "none": loopback only.
	DefaultNetwork string

	DataDir string // required; disks are below
	RunDir  string // required; sockets and consoles are below. May be empty after a reboot.

	Events *events.Bus  // nil: one of its own
	Log    *slog.Logger // nil: discarded

	// UIDFirst and UIDCount are the ids under which VMMs run, one for each machine.
	// UIDCount 0: all run under the daemon's own.
	UIDFirst, UIDCount int

	VCPUs   int   // of a machine that asks for none; 0: 1
	Memory  int64 // bytes, likewise; 0: 512 MiB
	Scratch int64 // bytes, likewise; 0: 10 GiB

	HostCPUs   int   // what a machine may have at most; 0: this host's
	HostMemory int64 // bytes, likewise

	// Templates are what machines are restored from. Nil: all boot.
	Templates *template.Catalogue
	// Snapshots are what users saved. Nil: none can be.
	Snapshots *snapshot.Catalogue
	// TemplateBounds are kept by dropping the least recently used; zero fields bound nothing.
	TemplateBounds template.Bounds
	Pool           PoolBounds // of machines kept ready
	// RestoreLimit is for a restored machine's agent to be identified, then it is booted instead. 0: BootLimit: where
	// restores take long, since the host is busy, boots would take ten times as long.
	RestoreLimit time.Duration
	// PingEvery is how often a running machine's agent is asked for a sign of life; 0: 2 s.
	PingEvery time.Duration
	// SilentLimit is how long one may owe it before the machine is ended; 0: 3 s. See pulse.go.
	SilentLimit time.Duration

	BootLimit time.Duration // from the VMM's start until the agent is identified; 0: 2 minutes (20 cold boots at once on two cores take 27 s)

	hardship func(pid int) hardship // hardshipOf, but in tests
}

func (c *Config) validate() error {
	if len(c.Engines) == 0 || c.DB == nil || c.Boot == nil || c.MakeDisk == nil || c.DataDir == "" || c.RunDir == "" {
		return errors.New("machine.Config: a required field is missing")
	}
	if c.Events == nil {
		c.Events = new(events.Bus)
	}
	if c.Network == nil {
		c.Network = noNetwork{}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	c.VCPUs = cmp.Or(c.VCPUs, 1)
	c.Memory = cmp.Or(c.Memory, 512<<20)
	c.Scratch = cmp.Or(c.Scratch, 10<<30)
	c.HostCPUs = cmp.Or(c.HostCPUs, runtime.NumCPU())
	c.BootLimit = cmp.Or(c.BootLimit, 2*time.Minute)
	c.RestoreLimit = cmp.Or(c.RestoreLimit, c.BootLimit)
	c.PingEvery = cmp.Or(c.PingEvery, 2*time.Second)
	c.SilentLimit = cmp.Or(c.SilentLimit, 3*time.Second)
	if c.hardship == nil {
		c.hardship = hardshipOf
	}
	if c.HostMemory == 0 {
		var info unix.Sysinfo_t
		if err := unix.Sysinfo(&info); err != nil {
			return fmt.Errorf("asking for the host's memory: %w", err)
		}
		c.HostMemory = int64(info.Totalram) * int64(info.Unit)
	}
	return nil
}

// Service holds all machines of one daemon. Its methods may be called concurrently.
type Service struct {
	Config
	records *store.Bucket[record]

	life context.Context // ends with Shutdown, its cause ErrShutdown
	end  context.CancelCauseFunc
	work sync.WaitGroup // supervisors, links, operations that outlive their callers

	builds builds // of templates, under way
	pool   pool

	poolPatience, poolDelay time.Duration // the constants, but for tests

	mu       sync.RWMutex
	machines map[string]*machine // by id
}

// New opens the records and adopts every machine that runs. What was half made
// is undone, what ended meanwhile becomes Stopped with a reason. It fails only when
// the database does: one bad machine never stops the start.
func New(c Config) (*Service, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	records, err := store.NewBucket[record](c.DB, bucket, recordVersion)
	if err != nil {
		return nil, err
	}
	s := &Service{Config: c, records: records, machines: make(map[string]*machine), poolPatience: poolPatience, poolDelay: poolDelay}
	s.life, s.end = context.WithCancelCause(context.Background())
	if err := s.adoptAll(); err != nil {
		s.end(ErrShutdown)
		s.work.Wait()
		return nil, err
	}
	if s.Pool.Max > 0 {
		s.work.Go(s.tend)
	}
	if s.Snapshots != nil {
		s.Snapshots.Sweep() // whoever uses a temporary one has been adopted
	}
	return s, nil
}

// Shutdown lets go: it waits for running operations to notice and for all
// goroutines to end. Machines go on and are adopted by the next New. It does not
// stop: VMMs, and subscriptions to events.
func (s *Service) Shutdown(ctx context.Context) error {
	s.mu.Lock() // after this no operation begins: see Service.begin
	s.end(ErrShutdown)
	s.mu.Unlock()
	done := make(chan struct{})
	go func() {
		s.work.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		return fmt.Errorf("waiting for machines to be let go: %w", ctx.Err())
	}
	return s.letGo(ctx)
}

// letGo closes the engines' handles of what still runs. No goroutine is left by now.
func (s *Service) letGo(ctx context.Context) error {
	var errs []error
	for _, m := range s.all() {
		if r := m.current(); r != nil && r.vm != nil {
			if m.hidden {
				errs = append(errs, r.vm.Kill(ctx))
			}
			errs = append(errs, r.vm.Close())
		}
		if m.hidden {
			errs = append(errs, m.removeFolders())
		}
	}
	return errors.Join(errs...)
}

// Get finds a machine by id, name or unique prefix of its id.
func (s *Service) Get(ref string) (Info, error) {
	m, err := s.find(ref)
	if err != nil {
		return Info{}, err
	}
	return m.info(), nil
}

// List tells of all machines, the oldest first.
func (s *Service) List() []Info {
	infos := []Info{}
	for _, m := range s.all() {
		if !m.hidden {
			infos = append(infos, m.info())
		}
	}
	slices.SortFunc(infos, func(a, b Info) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	return infos
}

// Subscribe listens to the events of the daemon: see events.Bus.Subscribe.
func (s *Service) Subscribe(since time.Time) *events.Subscription { return s.Events.Subscribe(since) }

func (s *Service) all() []*machine {
	s.mu.RLock()
	defer s.mu.RUnlock()
	all := make([]*machine, 0, len(s.machines))
	for _, m := range s.machines {
		all = append(all, m)
	}
	return all
}

func (s *Service) find(ref string) (*machine, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if m, ok := s.machines[ref]; ok && !m.hidden {
		return m, nil
	}
	var begins []*machine
	for id, m := range s.machines {
		if m.hidden {
			continue
		}
		if m.name != "" && m.name == ref {
			return m, nil
		}
		if ref != "" && strings.HasPrefix(id, ref) {
			begins = append(begins, m)
		}
	}
	switch len(begins) {
	case 0:
		return nil, &NotFoundError{ref}
	case 1:
		return begins[0], nil
	default:
		return nil, &AmbiguousError{ref, len(begins)}
	}
}

// engine gives the engine of this name. Records may name one that is no longer there.
func (s *Service) engine(name string) (vmm.Engine, error) {
	for _, e := range s.Engines {
		if e.Name() == name {
			return e, nil
		}
	}
	return nil, fmt.Errorf("engine %q is not available", name)
}
