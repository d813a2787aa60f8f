// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"net"
	"strings"

	"github.com/spf13/cobra"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

func newPort(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "port CONTAINER [PORT[/PROTOCOL]]",
		Short: "Show where a container's ports are published on the host",
		Example: `  micropod port web
  micropod port web 80`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) < 1 || len(args) > 2 {
				return usagef("micropod port CONTAINER [PORT[/PROTOCOL]]", "port takes a container, and perhaps one of its ports")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if _, err := a.connect(c.Context()); err != nil {
				return err
			}
			box, err := a.container(c.Context(), args[0])
			if err != nil {
				return err
			}
			if len(args) == 2 {
				return showPort(a, box, args[1])
			}
			for _, p := range box.Ports {
				for _, at := range hostEnds(p) {
					fmt.Fprintf(a.out, "%s -> %s\n", portName(p), at)
				}
			}
			return nil
		},
		ValidArgsFunction: completeContainers(a, running),
	}
}

func showPort(a *app, box *v1.Container, port string) error {
	if !strings.Contains(port, "/") {
		port += "/tcp"
	}
	found := false
	for _, p := range box.Ports {
		if portName(p) != port {
			continue
		}
		found = true
		for _, at := range hostEnds(p) {
			fmt.Fprintln(a.out, at)
		}
	}
	if !found {
		return usagef("micropod port "+box.Name+" shows those that are", "container %q publishes no port %s", box.Name, port)
	}
	return nil
}

func portName(p *v1.PortMapping) string { return fmt.Sprintf("%d/%s", p.ContainerPort, p.Protocol) }

// hostEnds are the host's addresses at which a port is reached; all of them are told as two.
func hostEnds(p *v1.PortMapping) []string {
	port := fmt.Sprint(p.HostPort)
	if p.HostIp != "" {
		return []string{net.JoinHostPort(p.HostIp, port)}
	}
	return []string{"0.0.0.0:" + port, "[::]:" + port}
}

// joinPorts is ps's column.
func joinPorts(ports []*v1.PortMapping) string {
	var list []string
	for _, p := range ports {
		for _, at := range hostEnds(p) {
			list = append(list, at+"->"+portName(p))
		}
	}
	return strings.Join(list, ", ")
}
