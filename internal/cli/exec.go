// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

type execOptions struct {
	request    v1.ExecRequest
	env        []string
	envFiles   []string
	detachKeys string
}

func newExec(a *app) *cobra.Command {
	o := &execOptions{}
	c := &cobra.Command{
		Use:   "exec [flags] CONTAINER COMMAND [ARG...]",
		Short: "Run a further command in a running container",
		Long: `Run a further command in a running container.

The exit code is the command's; 125 when micropod itself fails, 126 when the command
cannot be invoked, 127 when it is not found, 128+n when signal n ended it.`,
		Example: `  micropod exec web ls /etc
  micropod exec -it web sh
  micropod exec -e DEBUG=1 -u www-data -w /srv web id`,
		Annotations: map[string]string{runLike: "yes"},
		Args:        needArgs(2, "container and a command"),
		RunE: func(c *cobra.Command, args []string) error {
			return runExec(c.Context(), a, o, args)
		},
		ValidArgsFunction: completeContainers(a, running),
	}
	f := c.Flags()
	f.SetInterspersed(false)
	f.BoolVarP(&o.request.Stdin, "interactive", "i", false, "keep standard input open")
	f.BoolVarP(&o.request.Tty, "tty", "t", false, "give the process a terminal")
	f.BoolVarP(&o.request.Detach, "detach", "d", false, "run in the background; output is thrown away")
	f.StringArrayVarP(&o.env, "env", "e", nil, "set an environment variable; `NAME` alone takes the caller's value")
	f.StringArrayVar(&o.envFiles, "env-file", nil, "read environment variables from a `file`")
	f.StringVarP(&o.request.User, "user", "u", "", "user of the process: `name|uid[:group|gid]`")
	f.StringVarP(&o.request.WorkingDir, "workdir", "w", "", "working `directory` of the process")
	f.BoolVar(&o.request.Privileged, "privileged", false, "all rights within the machine")
	f.StringVar(&o.detachKeys, "detach-keys", defaultDetachKeys, "`keys` that leave the process running")
	return c
}

func runExec(ctx context.Context, a *app, o *execOptions, args []string) (err error) {
	keys, err := parseDetachKeys(o.detachKeys)
	if err != nil {
		return err
	}
	request := &o.request
	request.Container, request.Command = args[0], args[1:]
	if request.Env, err = environment(o.envFiles, o.env); err != nil {
		return err
	}
	if request.Tty && request.Stdin && !request.Detach && !isTerminal(a.in) {
		return usagef("leave out -t when input is a pipe or a file", "the input device is not a TTY")
	}
	if request.Tty {
		request.Window = windowSize(a.out)
	}
	client, err := a.connect(ctx)
	if err != nil {
		return err
	}
	answer, err := client.containers.Exec(ctx, connect.NewRequest(request))
	if err != nil || request.Detach {
		return err
	}
	if answer.Msg.ExecId == "" {
		return fmt.Errorf("the daemon started the command without an id")
	}
	f := &foreground{
		app: a, container: request.Container, exec: answer.Msg.ExecId, tty: request.Tty, keys: keys, fromStart: true,
		streams: attached{in: request.Stdin, out: true, err: true},
	}
	return f.run(ctx)
}
