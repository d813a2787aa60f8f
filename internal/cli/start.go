// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

type startOptions struct {
	attach, interactive, sigProxy bool
	detachKeys                    string
}

func newStart(a *app) *cobra.Command {
	o := &startOptions{}
	c := &cobra.Command{
		Use:   "start [flags] CONTAINER [CONTAINER...]",
		Short: "Start containers that do not run",
		Long: `Start containers that do not run.

With -a or -i the exit code is that of the container's process, and 125 when micropod itself fails.`,
		Example: `  micropod start web
  micropod start -ai shell`,
		Args: needArgs(1, "container"),
		RunE: func(c *cobra.Command, args []string) error {
			if o.attach || o.interactive {
				c.Annotations = map[string]string{runLike: "yes"}
				if len(args) > 1 {
					return usagef("leave out -a, or start them one by one", "only one container can be attached to")
				}
				return runStartAttached(c.Context(), a, o, args[0])
			}
			if _, err := a.connect(c.Context()); err != nil {
				return err
			}
			return a.each(c, args, func(name string) (string, error) { return name, a.start(c.Context(), name) })
		},
		ValidArgsFunction: completeContainers(a, stopped),
	}
	f := c.Flags()
	refuse(f, "what is saved is a whole machine", "checkpoint", "checkpoint-dir")
	f.BoolVarP(&o.attach, "attach", "a", false, "attach output, and pass on signals; the exit code is the container's")
	f.BoolVarP(&o.interactive, "interactive", "i", false, "attach standard input")
	f.BoolVar(&o.sigProxy, "sig-proxy", true, "pass signals on to the container")
	f.StringVar(&o.detachKeys, "detach-keys", defaultDetachKeys, "`keys` that leave the container running")
	return c
}

func runStartAttached(ctx context.Context, a *app, o *startOptions, name string) error {
	keys, err := parseDetachKeys(o.detachKeys)
	if err != nil {
		return err
	}
	if _, err := a.connect(ctx); err != nil {
		return err
	}
	container, err := a.container(ctx, name)
	if err != nil {
		return err
	}
	ctx, callOff := context.WithCancelCause(ctx)
	defer callOff(nil)
	signals := newSignalProxy(a, callOff)
	defer signals.end()
	f := &foreground{
		app: a, container: container.Id, start: true, tty: container.Config.GetTty(), keys: keys,
		streams: attached{in: o.interactive && container.Config.GetStdin(), out: true, err: true},
		onStart: signals.whenRunning(o.sigProxy, container.Id), proxied: o.sigProxy,
	}
	if container.StartedAt != nil {
		f.lastStart = container.StartedAt.AsTime()
	}
	return calledOff(ctx, f.run(ctx))
}

// container asks the daemon for one container by name, id or unique prefix.
func (a *app) container(ctx context.Context, name string) (*v1.Container, error) {
	answer, err := a.client.containers.Get(ctx, connect.NewRequest(&v1.GetContainerRequest{Container: name}))
	if err != nil {
		return nil, err
	}
	return answer.Msg.Container, nil
}
