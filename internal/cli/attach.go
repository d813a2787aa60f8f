// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"

	"github.com/spf13/cobra"
)

type attachOptions struct {
	noStdin, sigProxy bool
	detachKeys        string
}

func newAttach(a *app) *cobra.Command {
	o := &attachOptions{}
	c := &cobra.Command{
		Use:   "attach [flags] CONTAINER",
		Short: "Join the streams of a running container",
		Example: `  micropod attach shell
  micropod attach --no-stdin --sig-proxy=false web`,
		Args:        exactArgs(1, "one container"),
		Annotations: map[string]string{runLike: "yes"},
		RunE: func(c *cobra.Command, args []string) error {
			return runAttach(c.Context(), a, o, args[0])
		},
		ValidArgsFunction: completeContainers(a, running),
	}
	f := c.Flags()
	f.BoolVar(&o.noStdin, "no-stdin", false, "do not attach standard input")
	f.BoolVar(&o.sigProxy, "sig-proxy", true, "pass signals on to the container")
	f.StringVar(&o.detachKeys, "detach-keys", defaultDetachKeys, "`keys` that leave the container running")
	return c
}

func runAttach(ctx context.Context, a *app, o *attachOptions, name string) error {
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
	if !running(container.State) {
		return usagef("'micropod start -a "+container.Name+"' starts and attaches", "container %s does not run", container.Name)
	}
	in := container.Config.GetStdin() && !o.noStdin
	if container.Config.GetTty() && in && !isTerminal(a.in) {
		return usagef("use --no-stdin when input is a pipe or a file", "the input device is not a TTY")
	}
	ctx, callOff := context.WithCancelCause(ctx)
	defer callOff(nil)
	f := &foreground{
		app: a, container: container.Id, tty: container.Config.GetTty(), keys: keys,
		streams: attached{in: in, out: true, err: true},
	}
	if o.sigProxy {
		f.proxied = true
		signals := newSignalProxy(a, callOff)
		defer signals.end()
		f.onStart = signals.whenRunning(true, container.Id)
	}
	return calledOff(ctx, f.run(ctx))
}
