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
	"syscall"
	"time"

	"github.com/micropod/micropod/api/micropod/v1/micropodv1connect"
)

const (
	// Receive windows of HTTP/2: what a terminal that reads slowly may cost in memory.
	streamWindow     = 256 << 10
	connectionWindow = 1 << 20
	dialTimeout      = 5 * time.Second
)

// client holds the services of one daemon. Safe for concurrent use.
type client struct {
	containers micropodv1connect.ContainersClient
	images     micropodv1connect.ImagesClient
	system     micropodv1connect.SystemClient
	machines   micropodv1connect.FCControlClient
	templates  micropodv1connect.TemplatesClient
	snapshots  micropodv1connect.SnapshotsClient
	networks   micropodv1connect.NetworksClient
}

func newClient(socket string, t *trace) *client {
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	hc := &http.Client{Transport: t.transport(&http.Transport{
		Protocols: &protocols,
		HTTP2:     &http.HTTP2Config{MaxReceiveBufferPerStream: streamWindow, MaxReceiveBufferPerConnection: connectionWindow},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			d := net.Dialer{Timeout: dialTimeout}
			return d.DialContext(ctx, "unix", socket)
		},
	})}
	const base = "http://micropod" // no host: the socket is the address
	return &client{
		containers: micropodv1connect.NewContainersClient(hc, base),
		images:     micropodv1connect.NewImagesClient(hc, base),
		system:     micropodv1connect.NewSystemClient(hc, base),
		machines:   micropodv1connect.NewFCControlClient(hc, base),
		templates:  micropodv1connect.NewTemplatesClient(hc, base),
		snapshots:  micropodv1connect.NewSnapshotsClient(hc, base),
		networks:   micropodv1connect.NewNetworksClient(hc, base),
	}
}

// connect makes a.client, and starts the daemon where none listens.
func (a *app) connect(ctx context.Context) (*client, error) {
	if a.client != nil {
		return a.client, nil
	}
	defer a.trace.part("finding the daemon")()
	if err := a.ensureDaemon(ctx); err != nil {
		return nil, err
	}
	c, err := a.config.Load()
	if err != nil {
		return nil, err
	}
	a.client = newClient(c.Socket(), a.trace)
	return a.client, nil
}

// daemonError says that there is no daemon to talk to.
type daemonError struct {
	err  error
	hint string
	// mayComeBack: another runs that daemon, and may be restarting it.
	mayComeBack bool
}

func (e *daemonError) Error() string { return e.err.Error() }
func (e *daemonError) Unwrap() error { return e.err }

// probeSocket tells whether a daemon listens: nil, or why not.
func probeSocket(socket string) error {
	conn, err := net.DialTimeout("unix", socket, dialTimeout)
	if err != nil {
		return err
	}
	return conn.Close()
}

// absent tells that nobody listens, from a socket that may not be used.
func absent(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
}

func (a *app) ensureDaemon(ctx context.Context) error {
	c, err := a.config.Load()
	if err != nil {
		return err
	}
	err = probeSocket(c.Socket())
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrPermission):
		return &daemonError{
			err:  fmt.Errorf("no permission to use the daemon's socket %s", c.Socket()),
			hint: "run as root (sudo micropod ...), or join the group micropod: usermod -aG micropod USER",
		}
	case !absent(err):
		return &daemonError{err: fmt.Errorf("connecting to the daemon: %w", err), hint: "is " + c.Socket() + " the daemon's socket?"}
	case !c.StartsDaemon():
		return &daemonError{
			err:         fmt.Errorf("no daemon listens on %s", c.Socket()),
			hint:        "start micropodd there, or unset MICROPOD_HOST (--host) to have one started here",
			mayComeBack: true,
		}
	}
	return (&daemonStart{config: c, notes: a.err, limit: daemonStartLimit}).run(ctx)
}
