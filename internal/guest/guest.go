// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Package guest is the host's side of the guest channel: a session with the agent
// inside one machine.
//
//	Connect                     handshake, first Hello          -> Session
//	  Session.Agent             the agent's calls
//	  Session.Stdin, Output     the byte streams of a container's or exec's process
//	Session.Done, Err           its end, by Close, by a lost connection or by a guest that breaks the protocol
//
// A session never ends by time: guests are paused for days. So callers bring
// contexts; calls without a deadline get Options.CallTimeout, Wait alone may last.
//
// Streams are addressed by offset and outlive sessions: a new session goes on where
// the old one stopped. An Output's bytes stay with the agent, at most 256 KiB of them, until
// Output.Ack; the process blocks when that is full. A reader that stops reading stops
// the process and no other stream.
//
// A guest is hostile. Its frames, messages and streams are bounded (see package
// channel), its texts cleaned for people's eyes, and whatever it sends, nothing but its own session ends.
//
// internal/machine and internal/container use sessions; engines and the API's servers do not.
package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/containerd/log"
	"github.com/containerd/ttrpc"
	"github.com/sirupsen/logrus"

	"github.com/micropod/micropod/api/agent/channel"
	agentv1 "github.com/micropod/micropod/api/agent/v1"
)

// ttrpc logs, at level error, what a guest can cause as often as it likes: an answer to a call that nobody waits for any more.
func init() {
	quiet := logrus.New()
	quiet.SetOutput(io.Discard)
	log.L = logrus.NewEntry(quiet)
}

// Errors that callers tell apart.
var (
	// ErrEnded is in the error of every call and stream that the end of its session ended.
	ErrEnded = errors.New("session with the agent ended")
	// ErrNoStream says that the agent does not have the stream asked for: no such
	// process, or one without that stream.
	ErrNoStream = errors.New("the agent has no such stream")
	// ErrProtocol says that agent and daemon do not understand each other.
	ErrProtocol = errors.New("agent speaks another protocol")
)

// Options tune a session. The zero value is good.
type Options struct {
	// CallTimeout bounds calls whose context has no deadline, except Wait. Zero means 30 s.
	CallTimeout time.Duration
}

func (o Options) withDefaults() Options {
	if o.CallTimeout == 0 {
		o.CallTimeout = 30 * time.Second
	}
	return o
}

// Session is a connection to one agent. Methods may be called concurrently.
type Session struct {
	options Options
	host    *channel.Host
	client  *ttrpc.Client
	agent   agentv1.AgentService
	calls   chan struct{} // one for each call under way
	hello   *agentv1.HelloResponse
}

// Connect greets the agent behind conn and returns when it has answered its first
// call. ctx bounds both; without a deadline Connect waits for a guest that boots as long as
// it takes. conn is the session's from here on, and closed when Connect fails.
func Connect(ctx context.Context, conn net.Conn, o Options) (*Session, error) {
	host, err := channel.Dial(ctx, conn)
	if err != nil {
		return nil, fmt.Errorf("connecting to the agent: %w", err)
	}
	s := &Session{options: o.withDefaults(), host: host, calls: make(chan struct{}, maxCalls)}
	if err := s.begin(ctx); err != nil {
		_ = host.Close()
		return nil, fmt.Errorf("connecting to the agent: %w", err)
	}
	return s, nil
}

func (s *Session) begin(ctx context.Context) error {
	rpc, err := s.host.Open(ctx, channel.Header{Kind: channel.RPC})
	if err != nil {
		return err
	}
	s.client = ttrpc.NewClient(rpc, ttrpc.WithUnaryClientInterceptor(s.intercept))
	s.agent = agentv1.NewAgentClient(s.client)
	s.hello, err = s.agent.Hello(ctx, &agentv1.HelloRequest{Protocol: agentv1.Protocol})
	if err != nil {
		_ = s.client.Close()
		return err
	}
	if s.hello.Protocol < 1 {
		_ = s.client.Close()
		return fmt.Errorf("%w: version %d", ErrProtocol, s.hello.Protocol)
	}
	return nil
}

// Hello is the agent's answer to the session's first call. It must not be changed.
func (s *Session) Hello() *agentv1.HelloResponse { return s.hello }

// Agent is the agent's service. Its errors are gRPC statuses as the agent gave them,
// or wrap ErrEnded or the context's error.
func (s *Session) Agent() agentv1.AgentService { return s.agent }

// Ping measures a call to the agent and back.
func (s *Session) Ping(ctx context.Context) (time.Duration, error) {
	start := time.Now()
	_, err := s.agent.Hello(ctx, &agentv1.HelloRequest{Protocol: agentv1.Protocol})
	return time.Since(start), err
}

// Alive waits for a sign of life: the agent runs and its end of the channel answers, whatever its calls do. It is cheap.
func (s *Session) Alive(ctx context.Context) error {
	if err := s.host.Ping(ctx); err != nil {
		if cause := s.Err(); cause != nil {
			return cause
		}
		return fmt.Errorf("waiting for a sign of life of the agent: %w", err)
	}
	return nil
}

// Done is closed when the session has ended.
func (s *Session) Done() <-chan struct{} { return s.host.Done() }

// Err tells why the session ended, as an error that wraps ErrEnded; nil while it has not.
func (s *Session) Err() error { return ended(s.host.Err()) }

// Close ends the session, its streams and calls. The agent and its processes go on.
func (s *Session) Close() error {
	err := s.host.Close()
	_ = s.client.Close()
	return err
}

func ended(cause error) error {
	if cause == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrEnded, cause)
}
