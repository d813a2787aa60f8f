// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// world is a host, a neighbour on its own link, and beyond a router that translates, far:
//
//	host 192.0.2.1 --- 192.0.2.254 router 198.51.100.1 --- 198.51.100.2 far
type world struct{ host, router, far *namespace }

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{newNamespace(t, "host"), newNamespace(t, "router"), newNamespace(t, "far")}
	pair(w.host, "up0", []string{"192.0.2.1/24", "2001:db8:1::1/64"}, w.router, "in0", []string{"192.0.2.254/24", "2001:db8:1::fe/64"})
	pair(w.router, "out0", []string{"198.51.100.1/24", "2001:db8:2::1/64"}, w.far, "up0", []string{"198.51.100.2/24", "2001:db8:2::2/64"})
	w.router.set("ipv4/conf/all/forwarding", "1")
	w.router.set("ipv6/conf/all/forwarding", "1")
	for n, via := range map[*namespace][2]string{w.host: {"192.0.2.254", "2001:db8:1::fe"}, w.far: {"198.51.100.1", "2001:db8:2::1"}} {
		n.run("ip route add default via " + via[0])
		n.run("ip route add default via " + via[1])
	}
	return w
}

// listen serves on addresses inside, until the test ends: whoever comes is told under what
// address he was seen.
func (n *namespace) listen(protocol string, addresses ...string) {
	n.t.Helper()
	for _, a := range addresses {
		err := n.inside(func() error {
			if protocol == "udp" {
				return n.listenUDP(a)
			}
			l, err := net.Listen(protocol, a)
			if err != nil {
				return err
			}
			n.t.Cleanup(func() { l.Close() })
			go serve(l)
			return nil
		})
		if err != nil {
			n.t.Fatal(err)
		}
	}
}

func serve(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			if _, err := c.Read(make([]byte, 1)); err == nil {
				host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
				io.WriteString(c, host)
			}
		}()
	}
}

func (n *namespace) listenUDP(address string) error {
	c, err := net.ListenPacket("udp", address)
	if err != nil {
		return err
	}
	n.t.Cleanup(func() { c.Close() })
	go func() {
		question := make([]byte, 100)
		for {
			_, from, err := c.ReadFrom(question)
			if err != nil {
				return
			}
			host, _, _ := net.SplitHostPort(from.String())
			c.WriteTo([]byte(host), from)
		}
	}()
	return nil
}

// askLimit is how long an answer may take before silence is the answer.
const askLimit = 6 * time.Second

// ask asks what listen answers and returns that, or what went wrong in a few words.
func (n *namespace) ask(protocol, address string) string {
	n.t.Helper()
	var answer string
	err := n.inside(func() (err error) {
		answer, err = ask(n.t.Context(), protocol, address)
		return err
	})
	var errno syscall.Errno
	switch {
	case errors.As(err, &errno):
		return errno.Error()
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return "silence"
	case err != nil:
		return err.Error()
	}
	return answer
}

func ask(ctx context.Context, protocol, address string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	// Without a race between families: it would dial on other threads, in other namespaces.
	c, err := (&net.Dialer{FallbackDelay: -1}).DialContext(ctx, protocol, address)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if deadline, ok := ctx.Deadline(); ok {
		c.SetDeadline(deadline)
	}
	if _, err := io.WriteString(c, "?"); err != nil {
		return "", err
	}
	answer := make([]byte, 100)
	read, err := c.Read(answer)
	return string(answer[:read]), err
}

// start starts a command inside, killed with the test if it has not ended.
func (n *namespace) start(command string) {
	n.t.Helper()
	words := strings.Fields(command)
	cmd := exec.Command(words[0], words[1:]...)
	if err := n.inside(cmd.Start); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
}

// received reads what iperf3 says of the receiver, in bits per second (with -f k).
func received(t *testing.T, out string) float64 {
	t.Helper()
	for line := range strings.Lines(out) {
		if fields := strings.Fields(line); strings.HasSuffix(strings.TrimSpace(line), "receiver") {
			for i, f := range fields {
				if f == "Kbits/sec" {
					rate, err := strconv.ParseFloat(fields[i-1], 64)
					if err != nil {
						t.Fatal(err)
					}
					return rate * 1000
				}
			}
		}
	}
	t.Fatalf("iperf3 did not tell the rate:\n%s", out)
	return 0
}
