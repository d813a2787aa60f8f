// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/proto"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

func newUpdate(a *app) *cobra.Command {
	o := &containerFlags{}
	var policy string
	c := &cobra.Command{
		Use:   "update [flags] CONTAINER [CONTAINER...]",
		Short: "Change limits and egress rules of containers, of running ones at once, their restart policy and idle timeout",
		Long: `Change limits and egress rules of containers, of running ones at once, their restart policy and idle timeout.

The machine keeps its size, so a limit cannot be raised beyond its memory and vCPUs.

The rules given by --egress take the place of all that there were; --egress allow alone lifts them. Connections
that the new ones do not allow are cut, others go on.`,
		Example: `  micropod update --memory 256m --cpus 0.5 web
  micropod update --disk-bps 20m --disk-iops 500 web
  micropod update --egress allow=pypi.org:443 --egress 'allow=*.pythonhosted.org:443' sandbox
  micropod update --restart unless-stopped web db`,
		Args: needArgs(1, "container"),
		RunE: func(c *cobra.Command, args []string) error {
			request, err := o.update(c.Flags(), policy)
			if err != nil {
				return err
			}
			client, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			return a.each(c, args, func(name string) (string, error) {
				request := proto.Clone(request).(*v1.UpdateContainerRequest)
				request.Container = name
				_, err := client.containers.Update(c.Context(), connect.NewRequest(request))
				return name, err
			})
		},
		ValidArgsFunction: completeContainers(a, anyState),
	}
	o.addCgroup(c.Flags())
	addRestart(c.Flags(), &policy)
	o.addIdle(c.Flags())
	o.disk.addFlags(c.Flags())
	o.addEgress(c.Flags())
	refuseCgroup(c.Flags())
	return c
}

// update is what the flags change; a flag that is not given changes nothing.
func (o *containerFlags) update(f *pflag.FlagSet, policy string) (*v1.UpdateContainerRequest, error) {
	var config v1.ContainerConfig
	if err := o.readResources(&config); err != nil {
		return nil, err
	}
	r := &v1.UpdateContainerRequest{}
	if !proto.Equal(config.Resources, &v1.Resources{}) {
		r.Resources = config.Resources
	}
	if f.Changed("restart") {
		var err error
		if r.Restart, err = parseRestart(policy); err != nil {
			return nil, err
		}
	}
	if f.Changed("idle-timeout") {
		r.IdleTimeoutNanos = proto.Int64(o.idleTimeout.Nanoseconds())
	}
	if err := o.disk.check(nil); err != nil {
		return nil, err
	}
	r.RateLimiters = o.disk.limiters
	if len(o.egress) > 0 {
		r.Egress = &v1.Egress{Rules: o.egress}
	}
	if r.Resources == nil && r.RateLimiters == nil && r.Restart == nil && r.IdleTimeoutNanos == nil && r.Egress == nil {
		return nil, usagef("give a limit, such as --memory 256m, --restart, --idle-timeout or --egress", "there is nothing to change")
	}
	return r, nil
}
