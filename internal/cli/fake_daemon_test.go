// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	v1 "github.com/micropod/micropod/api/micropod/v1"
	"github.com/micropod/micropod/api/micropod/v1/micropodv1connect"
)

// fakeDaemon serves the whole API over a unix socket as micropodd does, with processes
// of this host where the real one has machines. What it holds outlives a
// restart (stop, listen), as the machines of the real one do.
type fakeDaemon struct {
	socket string

	mu         sync.Mutex
	server     *http.Server
	listener   net.Listener
	conns      map[net.Conn]bool
	requests   map[string][]proto.Message // by RPC, as they came
	containers []*fakeContainer
	execs      map[string]*fakeProcess
	images     []*v1.Image
	machines   []*v1.VM
	networks   []*v1.Network
	checks     []*v1.Check
	events     []*v1.Event
	faults     map[string]error // by RPC: what it answers instead
	changed    chan struct{}    // closed and made anew at every change
	ids        int

	// life counts the times that connections were cut: a daemon that died takes no more input.
	life int

	// dropAfter cuts all connections once that many bytes of output were sent; 0: never.
	dropAfter int
	sent      int
	// hold keeps Create or Start from answering until the caller gives up.
	hold map[string]bool
	// loseStart cuts all connections once, after a container was started.
	loseStart bool
	// slow makes progress last: what Create and Pull show takes so long.
	slow time.Duration
}

func newFakeDaemon(runDir string) *fakeDaemon {
	return &fakeDaemon{
		socket: filepath.Join(runDir, "micropod.sock"), requests: map[string][]proto.Message{}, execs: map[string]*fakeProcess{},
		faults: map[string]error{}, hold: map[string]bool{}, changed: make(chan struct{}), images: fakeImages(),
	}
}

// listen serves until stop.
func (d *fakeDaemon) listen() error {
	if err := os.MkdirAll(filepath.Dir(d.socket), 0o755); err != nil {
		return err
	}
	l, err := net.Listen("unix", d.socket)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	options := connect.WithInterceptors(&fakeEdge{d})
	mux.Handle(micropodv1connect.NewContainersHandler(&fakeContainers{fakeDaemon: d}, options))
	mux.Handle(micropodv1connect.NewImagesHandler(&fakeImageStore{fakeDaemon: d}, options))
	mux.Handle(micropodv1connect.NewFCControlHandler(&fakeMachines{fakeDaemon: d}, options))
	mux.Handle(micropodv1connect.NewSnapshotsHandler(&fakeSnapshots{fakeDaemon: d}, options))
	mux.Handle(micropodv1connect.NewTemplatesHandler(&fakeTemplates{fakeDaemon: d}, options))
	mux.Handle(micropodv1connect.NewNetworksHandler(&fakeNetworks{fakeDaemon: d}, options))
	mux.Handle(micropodv1connect.NewSystemHandler(&fakeSystem{fakeDaemon: d}, options))
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	s := &http.Server{Handler: mux, Protocols: &protocols, ConnState: d.track}
	d.mu.Lock()
	d.server, d.listener, d.conns = s, l, map[net.Conn]bool{}
	d.mu.Unlock()
	go func() { _ = s.Serve(l) }()
	return nil
}

func (d *fakeDaemon) track(c net.Conn, s http.ConnState) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s == http.StateClosed {
		delete(d.conns, c)
		return
	}
	d.conns[c] = true
}

// stop ends as a killed daemon does: nobody listens, and every connection breaks.
func (d *fakeDaemon) stop() {
	d.mu.Lock()
	s, l := d.server, d.listener
	d.server = nil
	d.mu.Unlock()
	if s == nil {
		return
	}
	_ = l.Close() // at once: Serve may not have begun, and would unlink the next daemon's socket
	_ = s.Close()
	d.cut()
}

// cut breaks every connection; new ones are taken.
func (d *fakeDaemon) cut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.life++
	for c := range d.conns {
		_ = c.Close()
	}
}

// end stops it all, processes included.
func (d *fakeDaemon) end() {
	d.stop()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.containers {
		c.process.kill()
	}
	for _, p := range d.execs {
		p.kill()
	}
}

// change does something to what is held and wakes those who wait.
func (d *fakeDaemon) change(do func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	do()
	close(d.changed)
	d.changed = make(chan struct{})
}

// await returns once done says so, which is called with d.mu held.
func (d *fakeDaemon) await(ctx context.Context, done func() bool) error {
	for {
		d.mu.Lock()
		ready, changed := done(), d.changed
		d.mu.Unlock()
		if ready {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// last is the latest request to an RPC, as JSON.
func (d *fakeDaemon) last(rpc string) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := d.requests[rpc]
	if len(list) == 0 {
		return "", fmt.Errorf("%s was never called", rpc)
	}
	text, err := protojson.Marshal(list[len(list)-1])
	return string(text), err
}

// refusal is an error as the real daemon sends it.
func refusal(code connect.Code, name, message, mend string, exit int32) error {
	e := connect.NewError(code, errors.New(message))
	detail, err := connect.NewErrorDetail(&v1.ErrorDetail{Code: name, Message: message, Cause: "the inner " + name, Remediation: mend, ExitCode: exit})
	if err != nil {
		panic(err)
	}
	e.AddDetail(detail)
	return e
}

func noSuchContainer(name string) error {
	return refusal(connect.CodeNotFound, "container_not_found", fmt.Sprintf("no container %q", name), "list containers with: micropod ps -a", 0)
}
