// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"sync"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

// forceAfter is how many interrupts in a row end the command whatever the container does.
const forceAfter = 3

// forwarded are the signals that a foreground command passes on to its container.
// Those that concern this process alone (SIGCHLD, SIGPIPE, SIGURG, SIGWINCH, job control by the
// terminal) stay here.
var forwarded = []os.Signal{
	unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM, unix.SIGCONT,
}

// signalProxy passes this process's signals on to a container, from the moment
// that it runs; before that an interrupt calls off its start.
type signalProxy struct {
	app       *app
	container string
	callOff   context.CancelCauseFunc
	incoming  chan os.Signal
	running   chan struct{}
	done      chan struct{}
	start     sync.Once
	stop      sync.Once
}

// interrupted is the cause of a start that a signal called off.
type interrupted struct{ signal unix.Signal }

func (e *interrupted) Error() string { return "interrupted by " + unix.SignalName(e.signal) }

func newSignalProxy(a *app, callOff context.CancelCauseFunc) *signalProxy {
	p := &signalProxy{
		app: a, callOff: callOff, incoming: make(chan os.Signal, 16),
		running: make(chan struct{}), done: make(chan struct{}),
	}
	signal.Notify(p.incoming, forwarded...)
	go p.loop()
	return p
}

// begin says that container runs: signals go there from now on.
func (p *signalProxy) begin(container string) {
	p.start.Do(func() {
		p.container = container
		close(p.running)
	})
}

// end gives the signals back to this process.
func (p *signalProxy) end() {
	p.stop.Do(func() {
		signal.Stop(p.incoming)
		close(p.done)
	})
}

func (p *signalProxy) loop() {
	interrupts := 0
	for {
		var s unix.Signal
		select {
		case got := <-p.incoming:
			s = got.(unix.Signal)
		case <-p.done:
			return
		}
		if s == unix.SIGINT || s == unix.SIGTERM {
			if interrupts++; interrupts >= forceAfter {
				fmt.Fprintf(p.app.err, "micropod: got %d interrupts: leaving; the container may still run\n", forceAfter)
				p.callOff(&interrupted{s})
				return
			}
		}
		select {
		case <-p.running:
			p.pass(s)
		default:
			if s == unix.SIGINT || s == unix.SIGTERM || s == unix.SIGHUP || s == unix.SIGQUIT {
				p.callOff(&interrupted{s})
			}
		}
	}
}

func (p *signalProxy) pass(s unix.Signal) {
	_, err := p.app.client.containers.Kill(context.Background(), connect.NewRequest(&v1.KillContainerRequest{
		Container: p.container, Signal: unix.SignalName(s),
	}))
	if err != nil && connect.CodeOf(err) != connect.CodeNotFound && connect.CodeOf(err) != connect.CodeFailedPrecondition {
		fmt.Fprintf(p.app.err, "micropod: passing on %s: %s\n", unix.SignalName(s), printable(describe(err).Message))
	}
}

// whenRunning is what to call once container runs: pass signals on to it, or
// leave them to this process.
func (p *signalProxy) whenRunning(pass bool, container string) func() {
	if !pass {
		return p.end
	}
	return func() { p.begin(container) }
}
