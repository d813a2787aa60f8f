// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Package server is the public API of api/micropod/v1: one file for each service,
// convert.go between the wire's types and the core's, errors.go from errors to what callers
// are told.
//
// Call order: New, Serve, then Shutdown. A handler checks the request (bounds,
// required fields), converts, calls one method of the core, converts back. No state is
// kept here. Only cmd/micropodd imports it.
//
// A client that does not read costs its HTTP/2 windows and no more: streams are
// written by their handlers, which block.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"runtime/debug"
	"time"

	"connectrpc.com/connect"

	"github.com/micropod/micropod/api/micropod/v1/micropodv1connect"
	"github.com/micropod/micropod/internal/container"
	"github.com/micropod/micropod/internal/doctor"
	"github.com/micropod/micropod/internal/events"
	"github.com/micropod/micropod/internal/image"
	"github.com/micropod/micropod/internal/lan"
	"github.com/micropod/micropod/internal/machine"
	"github.com/micropod/micropod/internal/snapshot"
	"github.com/micropod/micropod/internal/store"
	"github.com/micropod/micropod/internal/tracing/recorder"
)

const (
	maxMessage = 4 << 20 // bytes of one request message; a container's config or a piece of an archive is far smaller
	maxHeader  = 64 << 10

	// Windows of HTTP/2: what a client may send before its handler reads (bytes), and
	// streams at once on one connection.
	streamWindow     = 256 << 10
	connectionWindow = 1 << 20
	maxStreams       = 1000
)

// Containers is what machines and the host's figures need of the containers.
type Containers interface {
	Get(ref string) (container.Info, error)
	List(f container.Filter) []container.Info
	Remove(ctx context.Context, ref string, force bool) (id string, err error)
	LogUsage(ref string) (bytes int64, err error)
	Check(ctx context.Context) ([]machine.Finding, error)
	Snapshot(ctx context.Context, ref, name string) (snapshot.Snapshot, error)
	Restore(ctx context.Context, ref, name string) (container.Info, error)
	SetEgress(ctx context.Context, ref string, rules []string) (container.Info, error)
	Clone(ctx context.Context, ref string, names []string) (clones []container.Info, paused time.Duration, err error)
}

// Config is what a Server is made from. All fields but Log are required.
type Config struct {
	Machines   *machine.Service
	Containers Containers
	// ContainersRPC serves the Containers service: see NewContainers.
	ContainersRPC micropodv1connect.ContainersHandler
	Images        *image.Store
	Networks      *lan.Service
	Doctor        *doctor.Doctor
	Events        *events.Bus
	// Spans are the traced calls' (package tracing/recorder). Nil: none are kept.
	Spans interface {
		Spans(traceID string) ([]recorder.Span, error)
	}
	DB  *store.DB
	Log *slog.Logger

	DataDir, RunDir string // shown by Info
	BootCache       string // folder, measured by DiskUsage
}

// Server serves the API.
type Server struct {
	http *http.Server
	life context.Context
	end  context.CancelFunc
}

// New makes a server; Serve begins its work.
func New(c Config) *Server {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{}
	s.life, s.end = context.WithCancel(context.Background())
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	s.http = &http.Server{
		Handler:   c.handler(),
		Protocols: &protocols,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          maxStreams,
			MaxReceiveBufferPerStream:     streamWindow,
			MaxReceiveBufferPerConnection: connectionWindow,
		},
		MaxHeaderBytes:    maxHeader,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		BaseContext:       func(net.Listener) context.Context { return s.life },
		ErrorLog:          slog.NewLogLogger(c.Log.Handler(), slog.LevelDebug), // what clients can cause as often as they like
	}
	return s
}

func (c Config) handler() http.Handler {
	options := connect.WithHandlerOptions(
		connect.WithReadMaxBytes(maxMessage),
		connect.WithCompressMinBytes(math.MaxInt32), // the client is on this host
		connect.WithInterceptors(edge{c.Log}),
		connect.WithRecover(func(ctx context.Context, spec connect.Spec, _ http.Header, p any) error {
			c.Log.Error("panic in a handler", "rpc", spec.Procedure, "panic", p, "stack", string(debug.Stack()))
			return wireError(fmt.Errorf("the daemon made a mistake: %v", p))
		}),
	)
	mux := http.NewServeMux()
	saved := &snapshots{c.Machines, c.Containers}
	mux.Handle(micropodv1connect.NewFCControlHandler(&fcControl{c.Machines, c.Containers, saved}, options))
	mux.Handle(micropodv1connect.NewSnapshotsHandler(saved, options))
	mux.Handle(micropodv1connect.NewNetworksHandler(&networks{c.Networks, c.Machines, c.Containers}, options))
	mux.Handle(micropodv1connect.NewImagesHandler(&images{c.Images}, options))
	mux.Handle(micropodv1connect.NewSystemHandler(newSystem(c), options))
	mux.Handle(micropodv1connect.NewTemplatesHandler(&templates{c.Machines}, options))
	mux.Handle(micropodv1connect.NewContainersHandler(c.ContainersRPC, options))
	return mux
}

// Serve answers requests until Shutdown; nil then.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving the API: %w", err)
	}
	return nil
}

// Shutdown stops listening, ends the streams, and waits for running calls
// within ctx; those that take longer are cut.
func (s *Server) Shutdown(ctx context.Context) error {
	s.end()
	if err := s.http.Shutdown(ctx); err != nil {
		return s.http.Close()
	}
	return nil
}
