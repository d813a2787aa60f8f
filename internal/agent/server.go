// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/api/agent/channel"
)

// Config is what a Server works with. Containers and Machine are required.
type Config struct {
	Containers Containers
	Machine    Machine
	// Settle does what was put off at boot, or waits for it; it is called often. May be nil.
	Settle func() error
}

// Server serves the host: its calls and the streams of processes. The processes it knows belong to it, not to a session.
type Server struct {
	config    Config
	processes table
	// identified is set by Identify. Before that nothing may ask the kernel for its boot id, which it makes when
	// first asked: machines restored from one template would all have it.
	identified atomic.Bool
	started    sync.Once   // the first container
	shutting   atomic.Bool // Shutdown is at work
	ending     atomic.Bool // Shutdown has done its work
	powerOff   sync.Once

	initMu sync.Mutex // guards init
	init   Init       // of a disk of the user's own; nil while there is none
}

// NewServer returns a Server that knows no processes.
func NewServer(c Config) *Server {
	if c.Settle == nil {
		c.Settle = func() error { return nil }
	}
	return &Server{config: c, processes: table{byKey: make(map[processKey]*process)}}
}

// Serve serves one session after the other until ctx ends or the pipe is broken for good.
func (s *Server) Serve(ctx context.Context, pipe Pipe) error {
	for ctx.Err() == nil {
		conn, err := pipe.Next()
		if err != nil {
			return err
		}
		stop := context.AfterFunc(ctx, func() { conn.Close() })
		err = s.session(ctx, conn)
		stop()
		conn.Close()
		if err != nil && !hostLeft(err) {
			return err
		}
	}
	return ctx.Err()
}

// hostLeft tells the ordinary ends of a connection from a pipe that will never carry one again.
func hostLeft(err error) bool {
	for _, end := range []error{io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, os.ErrClosed, os.ErrDeadlineExceeded, unix.ECONNRESET, unix.EPIPE} {
		if errors.Is(err, end) {
			return true
		}
	}
	return false
}

// session waits for a host on conn and serves it until it leaves.
func (s *Server) session(ctx context.Context, conn io.ReadWriteCloser) error {
	guest, err := channel.Accept(conn)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var streams sync.WaitGroup
	for {
		stream, err := guest.Accept()
		if err != nil {
			break
		}
		streams.Go(func() {
			defer stream.Close()
			if err := s.stream(ctx, stream); err != nil && !errors.Is(err, channel.ErrLost) && ctx.Err() == nil {
				fmt.Fprintf(os.Stderr, "micropod-agent: stream: %v\n", err)
			}
		})
	}
	cancel()
	guest.Close()
	streams.Wait()
	if s.ending.Load() {
		s.end()
	}
	return nil
}

// stream serves one stream of the host's.
func (s *Server) stream(ctx context.Context, stream *channel.GuestStream) error {
	header, err := channel.ReadHeader(stream)
	if err != nil {
		return err
	}
	switch header.Kind {
	case channel.RPC:
		return s.serveCalls(ctx, stream)
	case channel.Coverage:
		return serveCoverage(stream)
	case channel.Files:
		return s.serveFiles(ctx, stream)
	}
	p := s.processes.get(processKey{header.Container, header.Exec})
	switch {
	case p == nil:
		return nil // the end of the stream says so
	case header.Kind == channel.Stdin && p.stdin != nil:
		return p.stdin.serve(ctx, stream)
	case header.Kind == channel.Stdout && p.stdout != nil:
		return serveOutput(ctx, stream, p.stdout, header.Offset)
	case header.Kind == channel.Stderr && p.stderr != nil:
		return serveOutput(ctx, stream, p.stderr, header.Offset)
	}
	return nil
}

// end powers the machine off. The answer to Shutdown is on its way to the host, or the host is gone.
func (s *Server) end() {
	s.powerOff.Do(func() {
		if err := s.config.Machine.PowerOff(); err != nil {
			fmt.Fprintf(os.Stderr, "micropod-agent: powering off: %v\n", err)
		}
	})
}
