// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/micropod/micropod/api/agent/channel"
	agentv1 "github.com/micropod/micropod/api/agent/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func socketPair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ends := make([]net.Conn, 2)
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		ends[i], err = net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ends[i].Close() })
	}
	return ends[0], ends[1]
}

func soon(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// evil is an agent that a test writes: calls answers the requests of ttrpc, streams
// gets all other streams.
type evil struct {
	calls   func(stream *channel.GuestStream)
	streams func(channel.Header, *channel.GuestStream)
}

// connect begins a session with an agent that goes wrong. Without calls of its own it answers Hello well.
func connect(t *testing.T, e evil, o Options) (*Session, error) {
	t.Helper()
	host, conn := socketPair(t)
	served := make(chan struct{})
	go func() {
		defer close(served)
		g, err := channel.Accept(conn)
		if err != nil {
			return
		}
		defer g.Close()
		for {
			stream, err := g.Accept()
			if err != nil {
				return
			}
			h, err := channel.ReadHeader(stream)
			if err != nil {
				return
			}
			if h.Kind != channel.RPC {
				go e.streams(h, stream)
				continue
			}
			go e.calls(stream)
		}
	}()
	s, err := Connect(soon(t), host, o)
	if err == nil {
		t.Cleanup(func() { s.Close() })
	}
	t.Cleanup(func() { host.Close(); <-served })
	return s, err
}

// answers returns calls that serve agent by ttrpc.
func answers(agent agentv1.AgentService) func(*channel.GuestStream) {
	return func(stream *channel.GuestStream) {
		server, _ := ttrpc.NewServer()
		agentv1.RegisterAgentService(server, agent)
		l := &oneConn{conn: make(chan net.Conn, 1), closed: make(chan struct{})}
		l.conn <- stream
		ctx, cancel := context.WithCancel(context.Background())
		go func() {
			<-stream.Session().CloseChan()
			cancel()
			server.Close()
		}()
		_ = server.Serve(ctx, l)
	}
}

type oneConn struct {
	conn   chan net.Conn
	closed chan struct{}
}

func (l *oneConn) Accept() (net.Conn, error) {
	select {
	case c := <-l.conn:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *oneConn) Close() error {
	select {
	case <-l.closed:
	default:
		close(l.closed)
	}
	return nil
}
func (l *oneConn) Addr() net.Addr { return nil }

// polite answers Hello, and the other calls as its fields say.
type polite struct {
	agentv1.AgentService
	signal func(context.Context) error
}

func (polite) Hello(context.Context, *agentv1.HelloRequest) (*agentv1.HelloResponse, error) {
	return &agentv1.HelloResponse{Protocol: 1}, nil
}

func (p polite) Signal(ctx context.Context, _ *agentv1.SignalRequest) (*agentv1.SignalResponse, error) {
	return &agentv1.SignalResponse{}, p.signal(ctx)
}

func (p polite) Wait(ctx context.Context, _ *agentv1.WaitRequest) (*agentv1.WaitResponse, error) {
	if _, ok := ctx.Deadline(); ok {
		return nil, errors.New("Wait has a deadline")
	}
	return &agentv1.WaitResponse{ExitCode: 1}, nil
}

func TestConnectToAnAgentThatTalksNonsense(t *testing.T) {
	t.Parallel()
	message := func(length, stream uint32, body string) []byte {
		b := binary.BigEndian.AppendUint32(nil, length)
		b = binary.BigEndian.AppendUint32(b, stream)
		return append(append(b, 2, 0), body...) // type 2 is a response
	}
	for name, b := range map[string][]byte{
		"no protobuf":       message(4, 1, "\xff\xff\xff\xff"),
		"message too large": message(5<<20, 1, strings.Repeat("x", 5<<20)),
		"a request":         append(message(0, 1, "")[:8], 1, 0),
		"cut short":         message(100, 1, "abc"),
		"nothing":           nil,
		"other protocol":    message(0, 1, ""), // an empty answer: protocol 0
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := connect(t, evil{calls: func(s *channel.GuestStream) {
				_, _ = s.Read(make([]byte, 1)) // the request is on its way
				_, _ = s.Write(b)
				s.Close()
			}}, Options{})
			if err == nil {
				t.Fatal("Connect = nil, want an error")
			}
			t.Log(err)
		})
	}
}

// Answers to calls that nobody made, however many, neither end the daemon nor hold the session up.
func TestAnswersThatNobodyAskedFor(t *testing.T) {
	t.Parallel()
	s, err := connect(t, evil{calls: func(stream *channel.GuestStream) {
		junk := binary.BigEndian.AppendUint32(nil, 4)
		junk = binary.BigEndian.AppendUint32(junk, 99)
		junk = append(junk, 2, 0, 'j', 'u', 'n', 'k')
		for range 1000 {
			_, _ = stream.Write(junk)
		}
		answers(polite{})(stream)
	}}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Ping(soon(t)); err != nil {
		t.Error(err)
	}
}

func TestGuestsErrorsAreCleaned(t *testing.T) {
	t.Parallel()
	text := "red \x1b[31malert\x07\nnext line\u202e" + strings.Repeat("x", 5000)
	s, err := connect(t, evil{calls: answers(polite{signal: func(context.Context) error {
		return status.Error(codes.NotFound, text)
	}})}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Agent().Signal(soon(t), &agentv1.SignalRequest{})
	if status.Code(err) != codes.NotFound {
		t.Fatalf("Signal = %v, want the agent's NotFound", err)
	}
	got := status.Convert(err).Message()
	if len(got) > maxMessage || strings.ContainsAny(got, "\x1b\x07\n\u202e") || !strings.HasPrefix(got, "red ?[31malert??next line?xxx") {
		t.Errorf("message = %q of %d bytes, want it printable and at most %d", got, len(got), maxMessage)
	}
}

func TestCallsEndWithTheirContexts(t *testing.T) {
	t.Parallel()
	s, err := connect(t, evil{calls: answers(polite{signal: func(ctx context.Context) error {
		<-ctx.Done()
		return nil
	}})}, Options{CallTimeout: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Agent().Signal(context.Background(), &agentv1.SignalRequest{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("call without a deadline = %v, want CallTimeout to end it", err)
	}
	ctx, cancel := context.WithCancel(soon(t))
	cancel()
	if _, err := s.Agent().Signal(ctx, &agentv1.SignalRequest{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled call = %v", err)
	}
	if w, err := s.Agent().Wait(context.Background(), &agentv1.WaitRequest{}); err != nil || w.ExitCode != 1 {
		t.Errorf("Wait = %v, %v, want it to have no deadline", w, err)
	}
	if err := s.Err(); err != nil {
		t.Errorf("session ended: %v", err)
	}
}

// A paused guest takes nothing. Callers must get away all the same, and Close too.
func TestPausedGuest(t *testing.T) {
	t.Parallel()
	host, conn := socketPair(t)
	pause := make(chan struct{})
	go func() {
		g, err := channel.Accept(pausable{conn, pause})
		if err != nil {
			return
		}
		defer g.Close()
		stream, err := g.Accept()
		if err != nil {
			return
		}
		_, _ = channel.ReadHeader(stream)
		go answers(polite{})(stream)
		<-g.Done()
	}()
	s, err := Connect(soon(t), host, Options{})
	if err != nil {
		t.Fatal(err)
	}
	close(pause)
	big := &agentv1.SignalRequest{ContainerId: strings.Repeat("x", 1<<20)}
	for range 3 { // the first fills the socket, the others wait behind it
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
		if _, err := s.Agent().Signal(ctx, big); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("call to a paused guest = %v, want its deadline", err)
		}
		if _, err := s.Output(ctx, "c", "", false, 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Output of a paused guest = %v, want its deadline", err)
		}
		cancel()
	}
	closed := make(chan struct{})
	go func() {
		s.Close()
		close(closed)
	}()
	select {
	case <-closed:
	case <-soon(t).Done():
		t.Fatal("Close waits for the paused guest")
	}
	if err := s.Err(); !errors.Is(err, ErrEnded) {
		t.Errorf("Err = %v, want %v", err, ErrEnded)
	}
	if _, err := s.Ping(soon(t)); !errors.Is(err, ErrEnded) {
		t.Errorf("Ping = %v, want %v", err, ErrEnded)
	}
	if _, _, err := s.Stdin(soon(t), "c", "", 0); !errors.Is(err, ErrEnded) {
		t.Errorf("Stdin = %v, want %v", err, ErrEnded)
	}
}

// pausable stops reading when paused, until it is closed.
type pausable struct {
	net.Conn
	paused chan struct{}
}

func (p pausable) Read(b []byte) (int, error) {
	select {
	case <-p.paused:
		return p.Conn.Read(make([]byte, 0)) // never any byte
	default:
		return p.Conn.Read(b[:min(len(b), 512)])
	}
}

func TestOutputOfALyingAgent(t *testing.T) {
	t.Parallel()
	for name, at := range map[string]uint64{"earlier than asked": 4, "near overflow": 1<<64 - 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := connect(t, evil{calls: answers(polite{}), streams: func(_ channel.Header, stream *channel.GuestStream) {
				_ = channel.WriteOffset(stream, at)
			}}, Options{})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Output(soon(t), "c", "", false, 5); err == nil || !strings.Contains(err.Error(), "asked for offset 5") {
				t.Errorf("Output = %v, want the agent's offset refused", err)
			}
		})
	}
	t.Run("bytes on an input", func(t *testing.T) {
		t.Parallel()
		s, err := connect(t, evil{calls: answers(polite{}), streams: func(_ channel.Header, stream *channel.GuestStream) {
			_ = channel.WriteOffset(stream, 0)
			_, _ = stream.Write([]byte("surprise"))
		}}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		in, _, err := s.Stdin(soon(t), "c", "", 0)
		if err != nil {
			t.Fatal(err)
		}
		for start := time.Now(); err == nil && time.Since(start) < 20*time.Second; {
			_, err = in.Write([]byte("x"))
		}
		if err == nil {
			t.Error("the input goes on")
		}
	})
}
