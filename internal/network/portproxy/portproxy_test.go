// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package portproxy

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// proxy serves a socket of its own for the target until the test ends.
func proxy(t *testing.T, protocol, target string) (address string) {
	t.Helper()
	var f *os.File
	if protocol == "udp" {
		c, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		address = c.LocalAddr().String()
		f, err = c.(*net.UDPConn).File()
		if err != nil {
			t.Fatal(err)
		}
	} else {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		address = l.Addr().String()
		f, err = l.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
	}
	// As exec does: the number is all that the proxy has.
	fd, err := syscall.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- Main(ctx, []string{"label", fmt.Sprintf("%s/%d/%s", protocol, fd, target)}) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(10 * time.Second):
			t.Error("the proxy does not end")
		}
	})
	return address
}

// echo answers with what it gets; a TCP client's end of data ends the answer.
func echo(t *testing.T, protocol string) string {
	t.Helper()
	if protocol == "udp" {
		c, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		go func() {
			b := make([]byte, datagram)
			for {
				n, from, err := c.ReadFrom(b)
				if err != nil {
					return
				}
				c.WriteTo(b[:n], from)
			}
		}()
		return c.LocalAddr().String()
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
	return l.Addr().String()
}

func TestTCPIsCarriedBothWaysToItsEnds(t *testing.T) {
	t.Parallel()
	address := proxy(t, "tcp", echo(t, "tcp"))
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	sent := make([]byte, 1<<20)
	rand.Read(sent)
	go func() {
		c.Write(sent)
		c.(*net.TCPConn).CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("of %d bytes %d came back, %v", len(sent), len(got), err)
	}
}

func TestAMachineThatRefusesIsARefusal(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := l.Addr().String()
	l.Close()
	c, err := net.Dial("tcp", proxy(t, "tcp", nobody))
	if err == nil { // or it was so fast
		defer c.Close()
		c.SetDeadline(time.Now().Add(20 * time.Second))
		_, err = c.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("reading from a port that nobody serves gave %v, want a reset", err)
	}
}

func TestConnectionsEndWithTheProxy(t *testing.T) {
	t.Parallel()
	var c net.Conn
	t.Run("open", func(t *testing.T) {
		address := proxy(t, "tcp", echo(t, "tcp"))
		var err error
		if c, err = net.Dial("tcp", address); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	})
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a connection outlived its proxy: %v", err)
	}
}

func TestUDPClientsHearTheirOwnAnswers(t *testing.T) {
	t.Parallel()
	address := proxy(t, "udp", echo(t, "udp"))
	for i := range 3 {
		c, err := net.Dial("udp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(20 * time.Second))
		for range 2 {
			want := fmt.Sprintf("client %d", i)
			if _, err := c.Write([]byte(want)); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, 100)
			n, err := c.Read(got)
			if err != nil || string(got[:n]) != want {
				t.Errorf("client %d got %q, %v", i, got[:n], err)
			}
		}
	}
}

func TestBadArgumentsAreRefused(t *testing.T) {
	t.Parallel()
	for want, args := range map[string][]string{
		"wanted are":                  {"label"},
		"is not PROTOCOL/FD/TARGET":   {"label", "tcp/3"},
		"\"sctp/3/127.0.0.1:1\" is":   {"label", "sctp/3/127.0.0.1:1"},
		"descriptor of":               {"label", "tcp/x/127.0.0.1:1"},
		"target of":                   {"label", "tcp/3/nowhere"},
		"tcp/60000/127.0.0.1:1":       {"label", "tcp/60000/127.0.0.1:1"},
		"udp/60000/127.0.0.1:1: file": {"label", "udp/60000/127.0.0.1:1"},
	} {
		if err := Main(t.Context(), args); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want an error with %q", args, err, want)
		}
	}
}
