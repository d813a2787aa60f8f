// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Package container runs OCI containers, each in a machine of its own: their
// records, life, standard streams, logs and further processes.
//
// Call order: New (which takes up what runs again), then all other methods from
// any goroutine, Close at the end. Close before the API's server is shut down: what
// attached clients have not taken then stays with the agents. Containers and
// machines go on.
//
// One container is an entry. Its operation lock (entry.op) makes Create, Start,
// Stop, Restart and Remove come one after the other; Kill, Exec, Attach, Wait and Logs
// do not take it. Remove by force interrupts what holds it. state.go draws the
// states; entry.change is the only place that changes one.
//
// One life of a container is a run: made when it is started, or before by a
// client that attaches first. Its supervisor goroutine waits for the first
// process's end, drains the output, records the exit, stops the machine, and
// removes the container if that was asked for. Each process has a goroutine per
// stream (package stream).
//
// Lock order: entry.op, Service.mu, entry.mu; the last two are never held while waiting.
//
// internal/server and internal/cri use it; nothing below imports it.
package container

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"github.com/micropod/micropod/internal/events"
	"github.com/micropod/micropod/internal/snapshot"
	"github.com/micropod/micropod/internal/store"
)

// ServiceConfig is what a Service is made from.
type ServiceConfig struct {
	Machines Machines  // required; see FromMachines
	Images   Images    // required
	DB       *store.DB // required
	Dir      string    // required; logs are in a folder for each container below

	Snapshots *snapshot.Catalogue // nil: there are none

	Events *events.Bus  // nil: one of its own
	Log    *slog.Logger // nil: discarded

	LogBytes int64 // size of a log file before the next one begins; 0: 10 MB
	LogFiles int   // number of log files kept; 0: 3

	// InputGrace is how long the input of a container whose input ends with its
	// client stays open when that client is lost rather than done: it may come back. 0: 10 s.
	InputGrace time.Duration
	// Return is how long a restarted daemon holds output that a client had not taken
	// for that client to come back. 0: 10 s.
	Return time.Duration
	// DrainLimit bounds the wait for a guest's last output after a process has ended. 0: 10 s.
	DrainLimit time.Duration
	// LeastIdle is the shortest Config.IdleTimeout that is accepted. 0: 1 s (to save and to restore takes about that).
	LeastIdle time.Duration
	// KillLimit bounds the wait for a process's end after SIGKILL; then the machine goes. 0: 5 s.
	KillLimit time.Duration
}

func (c *ServiceConfig) validate() error {
	if c.Machines == nil || c.Images == nil || c.DB == nil || c.Dir == "" {
		return errors.New("container.ServiceConfig: a required field is missing")
	}
	if c.Events == nil {
		c.Events = new(events.Bus)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	c.LogBytes = cmp.Or(c.LogBytes, 10_000_000)
	c.LogFiles = cmp.Or(c.LogFiles, 3)
	c.InputGrace = cmp.Or(c.InputGrace, 10*time.Second)
	c.Return = cmp.Or(c.Return, 10*time.Second)
	c.DrainLimit = cmp.Or(c.DrainLimit, 10*time.Second)
	c.LeastIdle = cmp.Or(c.LeastIdle, time.Second)
	c.KillLimit = cmp.Or(c.KillLimit, 5*time.Second)
	return nil
}

// Service holds all containers of one daemon. Its methods may be called concurrently.
type Service struct {
	ServiceConfig
	records *store.Bucket[record]

	life context.Context // ends with Close, its cause ErrShutdown
	end  context.CancelCauseFunc
	work sync.WaitGroup // goroutines and operations that Close waits for

	turns   chan struct{} // full while as many containers as may be are started by themselves
	takeUps chan struct{} // likewise, taken up from an earlier daemon

	mu      sync.RWMutex
	entries map[string]*entry // by id, created ones only
	names   map[string]string // to id; also of containers being created
}

// New reads the records and takes up every container whose machine runs. What was
// half made is undone, what ended meanwhile is recorded as such, in the background. It fails
// only when the database does.
func New(c ServiceConfig) (*Service, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	records, err := store.NewBucket[record](c.DB, bucket, recordVersion)
	if err != nil {
		return nil, err
	}
	s := &Service{ServiceConfig: c, records: records, entries: map[string]*entry{}, names: map[string]string{}, turns: make(chan struct{}, max(4, 2*runtime.NumCPU())), takeUps: make(chan struct{}, takeUpTogether)}
	s.life, s.end = context.WithCancelCause(context.Background())
	if err := s.recover(); err != nil {
		return nil, fmt.Errorf("reading the containers: %w", err)
	}
	return s, nil
}

// Close lets go of all containers and waits for every goroutine. It does not stop them.
func (s *Service) Close() {
	s.mu.Lock() // after this no operation begins: see enter
	s.end(ErrShutdown)
	s.mu.Unlock()
	s.work.Wait()
}

// enter counts an operation among those that Close waits for, and refuses it once Close has begun.
func (s *Service) enter() (leave func(), err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.life.Err() != nil {
		return nil, ErrShutdown
	}
	s.work.Add(1)
	return s.work.Done, nil
}

// spawn runs do in a goroutine that Close waits for. Once Close has begun it does
// not, and says so.
func (s *Service) spawn(do func()) bool {
	leave, err := s.enter()
	if err != nil {
		return false
	}
	go func() {
		defer leave()
		do()
	}()
	return true
}
