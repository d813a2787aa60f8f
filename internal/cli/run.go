// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

type runOptions struct {
	containerFlags
	detach, quiet, sigProxy, trace bool
	attach                         []string
	detachKeys, cidfile            string
}

func newRun(a *app) *cobra.Command {
	o := &runOptions{}
	c := &cobra.Command{
		Use:   "run [flags] IMAGE [COMMAND] [ARG...]",
		Short: "Create a container in a machine of its own and run it",
		Long: `Create a container in a machine of its own and run it.

The exit code is that of the container's process; 125 when micropod itself fails, 126 when
the command cannot be invoked, 127 when it is not found, 128+n when signal n ended it.`,
		Example: `  micropod run --rm debian cat /etc/os-release
  micropod run --rm -it debian bash
  echo hello | micropod run --rm -i busybox wc -c
  micropod run -d --name web -m 512m --cpus 2 nginx`,
		Args:        needImage,
		Annotations: map[string]string{runLike: "yes"},
		RunE: func(c *cobra.Command, args []string) error {
			config, err := o.config(c.Flags(), args)
			if err != nil {
				return err
			}
			if o.trace {
				a.trace = newTrace()
				defer a.printTrace()
			}
			return runRun(c.Context(), a, o, config)
		},
		ValidArgsFunction: completeImages(a),
	}
	f := c.Flags()
	o.addFlags(f)
	f.BoolVarP(&o.detach, "detach", "d", false, "run in the background and print the container's id")
	f.BoolVar(&o.autoRemove, "rm", false, "remove the container when it has ended")
	f.StringSliceVarP(&o.attach, "attach", "a", nil, "attach to `stdin|stdout|stderr` (default: all that fit)")
	f.BoolVar(&o.sigProxy, "sig-proxy", true, "pass signals on to the container")
	f.StringVar(&o.detachKeys, "detach-keys", defaultDetachKeys, "`keys` that leave the container running")
	f.StringVar(&o.cidfile, "cidfile", "", "write the container's id to a new `file`")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "show no progress")
	f.BoolVar(&o.trace, "trace", false, "show on standard error where the time went")
	return c
}

func needImage(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return usagef("'"+c.CommandPath()+" --help' shows examples", "%q needs an image", c.CommandPath())
	}
	return nil
}

func runRun(ctx context.Context, a *app, o *runOptions, config *v1.ContainerConfig) error {
	streams, err := chooseStreams(o.attach, o.stdin, o.detach)
	if err != nil {
		return err
	}
	keys, err := parseDetachKeys(o.detachKeys)
	if err != nil {
		return err
	}
	if o.tty && o.stdin && !o.detach && !isTerminal(a.in) {
		return usagef("leave out -t when input is a pipe or a file", "the input device is not a TTY")
	}
	ctx, callOff := context.WithCancelCause(ctx)
	defer callOff(nil)
	signals := newSignalProxy(a, callOff)
	defer signals.end()
	config.StdinOnce = o.stdin && !o.detach
	created := a.trace.part("creating the container")
	container, err := a.create(ctx, config, o.cidfile, o.quiet)
	created()
	if err != nil {
		return calledOff(ctx, err)
	}
	defer a.trace.part("running the container")()
	started := false
	if o.detach {
		err = a.start(ctx, container.Id)
		if started = err == nil; started {
			fmt.Fprintln(a.out, container.Id)
		}
	} else {
		passOn := signals.whenRunning(o.sigProxy, container.Id)
		f := &foreground{app: a, container: container.Id, streams: streams, tty: o.tty, keys: keys, fromStart: true, start: true}
		f.proxied = o.sigProxy
		f.onStart = func() {
			started = true
			passOn()
		}
		err = f.run(ctx)
	}
	if !started {
		o.undo(ctx, a, container)
	}
	return calledOff(ctx, err)
}

// undo removes a container that never ran, when it was to go at its end or the user called it off.
func (o *runOptions) undo(ctx context.Context, a *app, c *v1.Container) {
	var by *interrupted
	called := errors.As(context.Cause(ctx), &by)
	a.discard(c, o.autoRemove || called)
	if called && o.cidfile != "" {
		_ = os.Remove(o.cidfile)
	}
}

// calledOff replaces err by the signal that caused it.
func calledOff(ctx context.Context, err error) error {
	var by *interrupted
	if err != nil && errors.As(context.Cause(ctx), &by) {
		return exitCode(exitSignal + int(by.signal))
	}
	return err
}

// create makes the container, showing progress, and keeps the promise of --cidfile.
func (a *app) create(ctx context.Context, config *v1.ContainerConfig, cidfile string, quiet bool) (_ *v1.Container, err error) {
	var id *os.File
	if cidfile != "" {
		if id, err = os.OpenFile(cidfile, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644); err != nil {
			if errors.Is(err, os.ErrExist) {
				return nil, usagef("remove the file, or name another", "container id file %s exists", cidfile)
			}
			return nil, fmt.Errorf("creating the container id file: %w", err)
		}
		defer func() {
			_ = id.Close()
			if err != nil {
				_ = os.Remove(cidfile)
			}
		}()
	}
	client, err := a.connect(ctx)
	if err != nil {
		return nil, err
	}
	stream, err := client.containers.Create(ctx, connect.NewRequest(&v1.CreateContainerRequest{Config: config, Auth: a.authForCreate(ctx, config)}))
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	bars := newProgress(a.err, quiet)
	defer bars.finish()
	for stream.Receive() {
		switch e := stream.Msg().Event.(type) {
		case *v1.CreateContainerResponse_Progress:
			bars.update(e.Progress)
		case *v1.CreateContainerResponse_Container:
			bars.finish()
			for _, w := range stream.Msg().Warnings {
				fmt.Fprintf(a.err, "warning: %s\n", printable(w))
			}
			if id != nil {
				if _, err := id.WriteString(e.Container.Id); err != nil {
					a.discard(e.Container, true)
					return nil, fmt.Errorf("writing the container id file: %w", err)
				}
			}
			return e.Container, nil
		}
	}
	if err := stream.Err(); err != nil {
		return nil, err
	}
	return nil, errors.New("the daemon ended the answer without a container")
}

func (a *app) start(ctx context.Context, container string) error {
	_, err := a.client.containers.Start(ctx, connect.NewRequest(&v1.StartContainerRequest{Container: container}))
	return err
}

// discardLimit bounds the removal of a container that could not be started.
const discardLimit = 30 * time.Second

// discard removes a container that was not started when it was to be removed at its end anyway.
func (a *app) discard(c *v1.Container, autoRemove bool) {
	if !autoRemove {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), discardLimit)
	defer cancel()
	_, err := a.client.containers.Remove(ctx, connect.NewRequest(&v1.RemoveContainerRequest{Container: c.Id, Force: true}))
	if err != nil && connect.CodeOf(err) != connect.CodeNotFound {
		fmt.Fprintf(a.err, "micropod: removing %s: %s\n", c.Name, printable(describe(err).Message))
	}
}

// attached says which standard streams are joined.
type attached struct{ in, out, err bool }

// chooseStreams reads -a, -i and -d as Docker does.
func chooseStreams(names []string, stdin, detach bool) (attached, error) {
	if detach {
		if len(names) > 0 {
			return attached{}, usagef("use one of them", "-a and -d contradict each other")
		}
		return attached{}, nil
	}
	if len(names) == 0 {
		return attached{in: stdin, out: true, err: true}, nil
	}
	var s attached
	for _, n := range names {
		switch n {
		case "stdin", "STDIN":
			s.in = true
		case "stdout", "STDOUT":
			s.out = true
		case "stderr", "STDERR":
			s.err = true
		default:
			return attached{}, usagef("streams are stdin, stdout and stderr", "-a %q is no stream", n)
		}
	}
	return s, nil
}
