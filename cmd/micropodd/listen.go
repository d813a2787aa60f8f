// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"net"

	"github.com/micropod/micropod/internal/config"
	"github.com/micropod/micropod/internal/server"
)

// listen makes the socket, unless a service manager has made it.
func (d *daemon) listen() (net.Listener, error) {
	if l, err := server.Activated(); l != nil || err != nil {
		return l, err
	}
	gid, err := server.GroupID(cmp.Or(d.config.SocketGroup, config.DefaultSocketGroup), d.config.SocketGroup != "")
	if err != nil {
		return nil, err
	}
	return d.place.Listen(d.config.ListenSocket(), gid)
}
