// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"connectrpc.com/connect"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

// foreground is a process joined to this terminal until it ends: run, start
// -a, attach and exec differ only in these fields.
type foreground struct {
	app       *app
	container string
	exec      string // "": the container's first process
	streams   attached
	tty       bool
	keys      []byte      // that detach; only with a terminal
	fromStart bool        // output from its first byte, else from now on
	start     bool        // start the container once the streams stand
	onStart   func()      // called when the process runs
	proxied   bool        // signals go to the container rather than to this process
	lastStart time.Time   // of the container, before ours; zero: none
	joined    *attachment // set by run
}

// run returns nil or the process's end as an exitCode. The terminal is as before in any case.
func (f *foreground) run(ctx context.Context) error {
	a := f.app
	attachment := &attachment{
		app: a, stdout: a.out, stderr: a.err, opened: f.opened,
		open: &v1.AttachOpen{Container: f.container, ExecId: f.exec, Stdin: f.streams.in, Stdout: f.streams.out, Stderr: f.streams.err},
	}
	f.joined = attachment
	if f.start {
		attachment.wasStarted = f.wasStarted
	}
	if f.fromStart {
		attachment.open.StdoutOffset, attachment.open.StderrOffset = new(uint64), new(uint64)
	}
	restore := func() {}
	if f.tty && isTerminal(a.out) {
		sizes, stop := followWindow(a.out)
		defer stop()
		attachment.resize = sizes
	}
	if f.streams.in {
		var input io.Reader = a.in
		if f.tty && isTerminal(a.in) {
			var err error
			if restore, err = rawTerminal(a.in); err != nil {
				return fmt.Errorf("setting the terminal to raw mode: %w", err)
			}
			defer restore()
			if !f.proxied {
				defer restoreBeforeDeath(restore)()
			}
			input = &detachReader{r: a.in, keys: f.keys}
		}
		attachment.stdin = newInputLog(input)
	}
	exit, err := attachment.run(ctx)
	restore()
	if errors.Is(err, errDetached) {
		fmt.Fprintf(a.err, "detached from %s\n", f.container)
		return nil
	}
	if err != nil {
		return err
	}
	return ended(a, exit)
}

func (f *foreground) opened(ctx context.Context, _ bool) error {
	if f.start {
		if err := f.startOnce(ctx); err != nil {
			return err
		}
	}
	if f.onStart != nil {
		f.onStart()
	}
	return nil
}

// startOnce starts the container, on the first connection or one after it.
func (f *foreground) startOnce(ctx context.Context) error {
	if f.joined.ownStart {
		return nil
	}
	err := f.app.start(ctx, f.container)
	f.joined.ownStart = err == nil
	return err
}

// wasStarted tells whether our start succeeded though its answer was lost with the daemon: the
// container must not run twice.
func (f *foreground) wasStarted(ctx context.Context) bool {
	c, err := f.app.container(ctx, f.container)
	return err == nil && c.StartedAt != nil && !c.StartedAt.AsTime().Equal(f.lastStart)
}

// ended tells a process's end: its code, and in words what the code alone does not say.
func ended(a *app, exit *v1.Exit) error {
	if exit.OomKilled {
		fmt.Fprintln(a.err, "micropod: the container ran out of memory and was killed; give it more with --memory")
	} else if exit.Reason != "" {
		fmt.Fprintf(a.err, "micropod: %s\n", printable(exit.Reason))
	}
	if exit.Code == 0 {
		return nil
	}
	return exitCode(exit.Code)
}

// waitExit waits for a process that nobody is attached to.
func (a *app) waitExit(ctx context.Context, container, exec string) (*v1.Exit, error) {
	answer, err := a.client.containers.Wait(ctx, connect.NewRequest(&v1.WaitContainerRequest{Container: container, ExecId: exec}))
	if err != nil {
		return nil, err
	}
	return answer.Msg.Exit, nil
}
