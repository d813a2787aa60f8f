// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/micropod/micropod/internal/agent/runtime"
	"github.com/micropod/micropod/internal/guest"
)

func TestMain(m *testing.M) {
	runtime.Child()
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/micropod/micropod/internal/agent/reap.(*Reaper).run")) // sharedReaper's
}

// pipes is a Pipe whose host dials by hand.
type pipes struct{ conns chan net.Conn }

func (p pipes) Next() (io.ReadWriteCloser, error) {
	c, ok := <-p.conns
	if !ok {
		return nil, errors.New("the machine has no more connections")
	}
	return c, nil
}

// socketPair is a byte pipe with the kernel's buffers.
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
	}
	return ends[0], ends[1]
}

// guestSide is a Server that serves, and the way to it.
type guestSide struct {
	*Server
	pipe pipes
}

// newGuest serves until the test's end.
func newGuest(t testing.TB, c Config) *guestSide {
	t.Helper()
	g := &guestSide{Server: NewServer(c), pipe: pipes{make(chan net.Conn)}}
	var serving sync.WaitGroup
	serving.Go(func() { _ = g.Serve(context.Background(), g.pipe) })
	t.Cleanup(func() {
		close(g.pipe.conns)
		serving.Wait()
	})
	return g
}

// connect begins a session; the former one must have ended, as on a real port.
func (g *guestSide) connect(t testing.TB) *guest.Session {
	t.Helper()
	host, conn := socketPair(t)
	g.pipe.conns <- conn
	s, err := guest.Connect(soon(t), host, guest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func soon(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// add gives the guest a process that is nothing but its streams.
func (g *guestSide) add(container string) *process {
	p := &process{key: processKey{container: container}, stdin: newInput(), stdout: newRing(), stderr: newRing(), done: make(chan struct{})}
	g.processes.put(p.key, p)
	return p
}
