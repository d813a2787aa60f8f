// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package streamtest

import (
	"io"
	"sync"
)

// pipeBytes is how much input a Pipe takes ahead of its reader, like the kernel's pipes.
const pipeBytes = 64 << 10

// Pipe is a process's standard input. Its Read is the process's.
type Pipe struct {
	lost error

	mu      sync.Mutex
	changed *sync.Cond
	unread  []byte
	taken   uint64
	ended   bool // the end of input came
	gone    bool // the process reads no more
	session int
}

// NewPipe makes a pipe whose lost sessions give err.
func NewPipe(err error) *Pipe {
	p := &Pipe{lost: err}
	p.changed = sync.NewCond(&p.mu)
	return p
}

func (p *Pipe) do(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
	p.changed.Broadcast()
}

// Read waits for input.
func (p *Pipe) Read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case p.gone:
			return 0, io.ErrClosedPipe
		case len(p.unread) > 0:
			n := copy(b, p.unread)
			p.unread = p.unread[n:]
			p.changed.Broadcast()
			return n, nil
		case p.ended:
			return 0, io.EOF
		}
		p.changed.Wait()
	}
}

// Gone tells that the process ended.
func (p *Pipe) Gone() { p.do(func() { p.gone = true }) }

// Lose ends the open session.
func (p *Pipe) Lose() { p.do(func() { p.session++ }) }

// Open opens a session, and tells how much input was taken.
func (p *Pipe) Open() (*PipeSession, uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.session++
	p.changed.Broadcast()
	return &PipeSession{p: p, number: p.session}, p.taken
}

// PipeSession is a stream.Sink.
type PipeSession struct {
	p      *Pipe
	number int
}

// Write waits while the process does not read.
func (s *PipeSession) Write(b []byte) (int, error) {
	p := s.p
	p.mu.Lock()
	defer p.mu.Unlock()
	for n := 0; ; {
		switch {
		case p.gone:
			return n, io.ErrClosedPipe
		case s.number != p.session:
			return n, p.lost
		case n == len(b):
			return n, nil
		}
		if room := pipeBytes - len(p.unread); room > 0 {
			k := min(room, len(b)-n)
			p.unread = append(p.unread, b[n:n+k]...)
			n += k
			p.taken += uint64(k)
			p.changed.Broadcast()
			continue
		}
		p.changed.Wait()
	}
}

// Close is the end of input.
func (s *PipeSession) Close() error {
	s.p.do(func() { s.p.ended = true })
	return nil
}

// Detach leaves the input open.
func (s *PipeSession) Detach() {}
