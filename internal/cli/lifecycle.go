// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

// needArgs refuses fewer than n words, naming what is missing.
func needArgs(n int, what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) < n {
			return usagef("'"+c.CommandPath()+" --help' shows examples", "%q needs a %s", c.CommandPath(), what)
		}
		return nil
	}
}

// exactArgs wants n words.
func exactArgs(n int, what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) != n {
			return usagef("'"+c.CommandPath()+" --help' shows examples", "%q takes %s", c.CommandPath(), what)
		}
		return nil
	}
}

// atMostArgs wants no more than n words.
func atMostArgs(n int, what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) > n {
			return exactArgs(n, what)(c, args)
		}
		return nil
	}
}

// stopFlags are the grace period and signal of stop and restart.
type stopFlags struct {
	seconds int
	signal  string
}

func (o *stopFlags) addFlags(f *pflag.FlagSet) {
	f.IntVarP(&o.seconds, "time", "t", 10, "`seconds` before the container is killed (default: its own, else 10)")
	f.IntVar(&o.seconds, "timeout", 10, "`seconds` before the container is killed")
	f.StringVarP(&o.signal, "signal", "s", "", "`signal` to send first (default: the container's own)")
	f.Lookup("timeout").Hidden = true // Docker's new name of --time
}

// timeout is nil unless the user gave one.
func (o *stopFlags) timeout(f *pflag.FlagSet) (*uint32, error) {
	if !f.Changed("time") && !f.Changed("timeout") {
		return nil, nil
	}
	if o.seconds < 0 {
		return nil, usagef("use 'micropod kill' to end it at once, or a large number", "--time %d: a wait without end is not supported", o.seconds)
	}
	n := uint32(o.seconds)
	return &n, nil
}

func newStop(a *app) *cobra.Command {
	o := &stopFlags{}
	c := &cobra.Command{
		Use:   "stop [flags] CONTAINER [CONTAINER...]",
		Short: "Ask containers to end, and kill them after a while",
		Example: `  micropod stop web
  micropod stop -t 30 -s SIGINT web db`,
		Args: needArgs(1, "container"),
		RunE: func(c *cobra.Command, args []string) error {
			timeout, err := o.timeout(c.Flags())
			if err != nil {
				return err
			}
			return a.onEach(func(ctx context.Context, client *client, name string) error {
				_, err := client.containers.Stop(ctx, connect.NewRequest(&v1.StopContainerRequest{
					Container: name, TimeoutSeconds: timeout, Signal: o.signal,
				}))
				return err
			})(c, args)
		},
		ValidArgsFunction: completeContainers(a, running),
	}
	o.addFlags(c.Flags())
	return c
}

func newRestart(a *app) *cobra.Command {
	o := &stopFlags{}
	c := &cobra.Command{
		Use:     "restart [flags] CONTAINER [CONTAINER...]",
		Short:   "Stop containers and start them again",
		Example: `  micropod restart -t 3 web`,
		Args:    needArgs(1, "container"),
		RunE: func(c *cobra.Command, args []string) error {
			timeout, err := o.timeout(c.Flags())
			if err != nil {
				return err
			}
			return a.onEach(func(ctx context.Context, client *client, name string) error {
				_, err := client.containers.Restart(ctx, connect.NewRequest(&v1.RestartContainerRequest{
					Container: name, TimeoutSeconds: timeout, Signal: o.signal,
				}))
				return err
			})(c, args)
		},
		ValidArgsFunction: completeContainers(a, anyState),
	}
	o.addFlags(c.Flags())
	return c
}

func newKill(a *app) *cobra.Command {
	var signal string
	c := &cobra.Command{
		Use:   "kill [flags] CONTAINER [CONTAINER...]",
		Short: "Send a signal to running containers",
		Example: `  micropod kill web
  micropod kill -s HUP web`,
		Args: needArgs(1, "container"),
		RunE: a.onEach(func(ctx context.Context, client *client, name string) error {
			_, err := client.containers.Kill(ctx, connect.NewRequest(&v1.KillContainerRequest{Container: name, Signal: signal}))
			return err
		}),
		ValidArgsFunction: completeContainers(a, running),
	}
	c.Flags().StringVarP(&signal, "signal", "s", "KILL", "`signal` to send: name or number")
	return c
}

func newRm(a *app) *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use:     "rm [flags] CONTAINER [CONTAINER...]",
		Aliases: []string{"remove"},
		Short:   "Remove containers with their machines and disks",
		Example: `  micropod rm web
  micropod rm -f $(micropod ps -aq)`,
		Args: needArgs(1, "container"),
		RunE: a.onEach(func(ctx context.Context, client *client, name string) error {
			_, err := client.containers.Remove(ctx, connect.NewRequest(&v1.RemoveContainerRequest{Container: name, Force: force}))
			return err
		}),
		ValidArgsFunction: completeContainers(a, anyState),
	}
	c.Flags().BoolVarP(&force, "force", "f", false, "remove also those that run")
	refuse(c.Flags(), "containers are not linked to each other", "link")
	c.Flags().Lookup("link").NoOptDefVal = "true"
	c.Flags().BoolP("volumes", "v", false, "accepted for docker's sake: there are no anonymous volumes")
	c.Flags().Lookup("volumes").Hidden = true
	return c
}

func newWait(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "wait CONTAINER [CONTAINER...]",
		Short:   "Wait for containers to end and print their exit codes",
		Example: `  micropod wait job`,
		Args:    needArgs(1, "container"),
		RunE: func(c *cobra.Command, args []string) error {
			if _, err := a.connect(c.Context()); err != nil {
				return err
			}
			return a.each(c, args, func(name string) (string, error) {
				exit, err := a.waitExit(c.Context(), name, "")
				if err != nil {
					return "", err
				}
				return fmt.Sprint(exit.Code), nil
			})
		},
		ValidArgsFunction: completeContainers(a, running),
	}
}
