// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	agentv1 "github.com/micropod/micropod/api/agent/v1"
	"github.com/micropod/micropod/internal/guest"
	"github.com/micropod/micropod/internal/vmm"
)

const (
	// A lost channel is dialled again at once, then at growing distances up to the last.
	redialFirst = 5 * time.Millisecond
	redialLast  = time.Second

	// restTime is what a guest takes to notice that its session ended and to wait for the next one, many times over.
	restTime = 100 * time.Millisecond

	entropyBytes = 256 // the pool's whole strength (drivers/char/random.c: POOL_BITS)
)

// link keeps the guest channel of one run connected: one session at a time, the
// next one as soon as the last is lost.
type link struct {
	m  *machine
	vm vmm.Machine

	quit chan struct{} // closed by rest
	done chan struct{} // closed when keep is over

	mu      sync.Mutex
	session *guest.Session         // nil while there is none
	changed chan struct{}          // closed, and replaced, when session changes
	greeted *agentv1.HelloResponse // the last session's
}

func newLink(m *machine, vm vmm.Machine) *link {
	return &link{m: m, vm: vm, quit: make(chan struct{}), done: make(chan struct{}), changed: make(chan struct{})}
}

// keep holds the link until the VMM is gone or life ends.
func (l *link) keep(life context.Context, r *run) {
	defer close(l.done)
	ctx, cancel := r.while(life)
	defer cancel()
	go func() { // ends with ctx
		select {
		case <-l.quit:
			cancel()
		case <-ctx.Done():
		}
	}()
	wait := redialFirst
	for ctx.Err() == nil {
		session, err := l.dial(ctx)
		if err != nil {
			l.m.log.Debug("guest channel", "error", err, "again", wait)
			sleep(ctx, wait)
			wait = min(2*wait, redialLast)
			continue
		}
		wait = redialFirst
		l.hold(ctx, session)
	}
}

// rest ends the session, dials no more, and gives the guest the time to notice. It is called once.
func (l *link) rest() {
	close(l.quit)
	<-l.done
	sleep(l.m.s.life, restTime)
}

func (l *link) dial(ctx context.Context) (*guest.Session, error) {
	conn, err := l.vm.GuestConn(ctx)
	if err != nil {
		return nil, err
	}
	return guest.Connect(ctx, conn, guest.Options{}) // no time limit: a paused guest may take days
}

// hold offers the session until it or ctx ends.
func (l *link) hold(ctx context.Context, session *guest.Session) {
	l.set(session)
	defer l.set(nil)
	defer session.Close()
	select {
	case <-session.Done():
		l.m.log.Debug("guest channel lost", "error", session.Err())
	case <-ctx.Done():
	}
}

func (l *link) set(session *guest.Session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.session = session
	if session != nil {
		l.greeted = session.Hello()
	}
	close(l.changed)
	l.changed = make(chan struct{})
}

// hello is what the agent said of itself in the last session.
func (l *link) hello() *agentv1.HelloResponse {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.greeted
}

// await gives the session, waiting for one within ctx and while the VMM lives.
func (l *link) await(ctx context.Context, r *run) (*guest.Session, error) {
	for {
		l.mu.Lock()
		session, changed := l.session, l.changed
		l.mu.Unlock()
		if session != nil && session.Err() == nil {
			return session, nil
		}
		select {
		case <-changed:
		case <-r.gone:
			return nil, fmt.Errorf("%w: %s", ErrEnded, l.m.whyEnded(r))
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// Session gives the connection to the agent of a running machine. After a lost
// channel, and while the machine is paused or suspended (which it does not end), it waits for the next one within ctx. The session is shared and not the
// caller's to close; it may end at any time (guest.ErrEnded): ask again then.
// Errors: *NotFoundError, *StateError when the machine does not run, ErrEnded when it ends meanwhile.
func (s *Service) Session(ctx context.Context, ref string) (*guest.Session, error) {
	m, err := s.find(ref)
	if err != nil {
		return nil, err
	}
	for {
		m.mu.Lock()
		state, reason, r, z := m.rec.State, m.rec.Reason, m.run, m.asleep
		m.mu.Unlock()
		if z != nil {
			select {
			case <-z.woken:
				continue
			case <-ctx.Done():
				return nil, fmt.Errorf("connection to the agent of suspended machine %s: %w", m.id, context.Cause(ctx))
			}
		}
		if r == nil || !state.connected() {
			return nil, &StateError{ID: m.id, Action: "reach the agent of", State: state, Reason: reason}
		}
		session, err := r.link.await(ctx, r)
		if err != nil && errors.Is(err, ErrEnded) && m.rested(r) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("connection to the agent of machine %s: %w", m.id, err)
		}
		return session, nil
	}
}

// rested says whether a run ended because the machine was suspended.
func (m *machine) rested(r *run) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return r.rests
}

// introduce makes the guest nobody's twin: entropy, clock, names. In a clone containers run that know of other ones.
func (m *machine) introduce(ctx context.Context, session *guest.Session, clone bool) error {
	rec := m.record()
	entropy := make([]byte, entropyBytes)
	_, _ = rand.Read(entropy) // never fails (crypto/rand)
	sent := time.Now()
	answer, err := session.Agent().Identify(ctx, &agentv1.IdentifyRequest{
		Entropy:   entropy,
		UnixNanos: sent.UnixNano(),
		Hostname:  hostname(rec.Spec),
		MachineId: rec.MachineID,
		Clone:     clone,
		Root:      rec.Spec.root(),

		Interfaces: m.s.Network.Joined(m.id).guestInterfaces(),
	})
	if err != nil {
		return err
	}
	return m.correctClock(ctx, session, readClock(sent, time.Now(), answer.UnixNanos))
}

// hostname is the one asked for, else the name if it may be one, else the id's begin as Docker has it.
func hostname(s Spec) string {
	if s.Hostname != "" {
		return s.Hostname
	}
	if len(s.Name) <= maxHostname && hostForm.MatchString(s.Name) {
		return s.Name
	}
	return s.ID[:min(len(s.ID), 12)]
}

// sleep waits for d or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
