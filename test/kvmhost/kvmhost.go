// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Package kvmhost is a host with a working /dev/kvm, made in software: QEMU emulates a machine with AMD's
// virtualisation, in which the real Firecracker and its jailer run on any machine, CI runners without KVM included.
//
//	func TestConformance(t *testing.T) {
//		if !kvmhost.Enter(t, kvmhost.Files{"/guest": path}) {
//			return // it ran inside, and t has its result
//		}
//		... // inside: /dev/kvm, /usr/bin/firecracker, /usr/bin/jailer
//	}
//
// [Enter] copies the running test binary into the host, runs the one test there with the flags it
// has here, and brings back its result and coverage. One host serves a test binary; [Main] ends it. It is up
// in about 3 s: a microvm with two vCPUs, an EROFS image (busybox, Firecracker, the kernel for guests and
// its modules; made once, kept in .cache/kvmhost) under a layer in memory, and an ext4 disk on /tmp. Its init (the
// folder init) is ours and serves requests over a virtio-serial port.
//
// Needed: QEMU, a Debian cloud kernel, busybox-static, e2fsprogs, pip. What is missing skips the test, or
// fails it where MICROPOD_TEST_ALL is set, as scripts/test.sh does.
//
// Why not a privileged machine of micropod itself? One works, and a test of test/e2e shows it; but this one
// must outlive no test (it dies with the test binary) and stand when the code under test does not.
package kvmhost

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/yamux"

	"github.com/micropod/micropod/test/kvmhost/wire"
)

// Host is a KVM host that runs. Its methods may be called concurrently.
type Host struct {
	qemu    *process
	conn    net.Conn
	session *yamux.Session
}

// Start boots a host, which ends with Close or with the calling process.
func Start(ctx context.Context) (*Host, error) {
	b, err := prepare(ctx)
	if err != nil {
		return nil, err
	}
	q, conn, err := boot(ctx, b)
	if err != nil {
		return nil, err
	}
	h := &Host{qemu: q, conn: conn}
	if h.session, err = yamux.Client(conn, wire.Config()); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	// The first answer says that it is up.
	if code, err := h.Run(ctx, Command{Args: []string{"/bin/true"}}); err != nil || code != 0 {
		return nil, errors.Join(fmt.Errorf("the KVM host does not answer: code %d, %w; its console:\n%s", code, err, q.consoleTail()), h.Close())
	}
	return h, nil
}

// Close ends the host.
func (h *Host) Close() error {
	if h.session == nil {
		return errors.Join(h.conn.Close(), h.qemu.end())
	}
	return errors.Join(h.session.Close(), h.qemu.end())
}

// Command is a program to run in the host.
type Command struct {
	Args []string
	Env  []string // NAME=VALUE, beside the host's own
	Dir  string   // empty: /tmp

	Stdin          io.Reader // nil: empty
	Stdout, Stderr io.Writer // nil: dropped

	// TTY gives it a terminal of Rows lines and Columns; all output is on Stdout then.
	TTY           bool
	Rows, Columns uint16
}

// Run runs a program to its end and returns its exit code, 128+n when signal n ended it. When ctx ends
// the program goes on unheard.
func (h *Host) Run(ctx context.Context, c Command) (int, error) {
	return h.request(ctx, wire.Request{Verb: "exec", Args: c.Args, Env: c.Env, Dir: c.Dir, TTY: c.TTY, Rows: c.Rows, Columns: c.Columns},
		func(w io.Writer) error {
			if c.Stdin == nil {
				return nil
			}
			_, err := io.Copy(w, c.Stdin)
			return err
		}, c.Stdout, c.Stderr)
}

// Files are to be copied into the host: path there, path here.
type Files map[string]string

// Put copies files into the host.
func (h *Host) Put(ctx context.Context, files Files) error {
	_, err := h.request(ctx, wire.Request{Verb: "put", Dir: "/"}, func(w io.Writer) error {
		archive := tar.NewWriter(w)
		for _, there := range slices.Sorted(maps.Keys(files)) {
			if err := wire.WriteFile(archive, files[there], strings.TrimPrefix(there, "/")); err != nil {
				return err
			}
		}
		return archive.Close()
	}, nil, nil)
	if err != nil {
		return fmt.Errorf("copying files into the KVM host: %w", err)
	}
	return nil
}

// Get copies the files below the host's folder from into the folder to.
func (h *Host) Get(ctx context.Context, from, to string) error {
	r, w := io.Pipe()
	unpacked := make(chan error, 1)
	go func() {
		err := wire.ReadTree(r, to)
		_ = r.CloseWithError(err)
		unpacked <- err
	}()
	_, err := h.request(ctx, wire.Request{Verb: "get", Dir: from}, nil, w, nil)
	_ = w.CloseWithError(err)
	if err = errors.Join(err, <-unpacked); err != nil {
		return fmt.Errorf("copying %s from the KVM host: %w", from, err)
	}
	return nil
}

// request sends a request and what send writes, and gives output to the writers until the exit code comes.
func (h *Host) request(ctx context.Context, q wire.Request, send func(io.Writer) error, stdout, stderr io.Writer) (int, error) {
	stream, err := h.session.OpenStream()
	if err != nil {
		return 0, fmt.Errorf("reaching the KVM host: %w", err)
	}
	defer stream.Close()
	stop := context.AfterFunc(ctx, func() { _ = stream.SetDeadline(time.Unix(1, 0)) }) // Close would close our half only
	defer stop()
	if err := wire.WriteRequest(stream, q); err != nil {
		return 0, err
	}
	sent := make(chan error, 1)
	go func() {
		var err error
		if send != nil {
			err = send(stream)
		}
		sent <- err
		_ = stream.Close() // its half: what it answers is still read
	}()
	for {
		kind, payload, err := wire.ReadFrame(stream)
		if err != nil {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return 0, fmt.Errorf("the KVM host's answer to %s: %w", q.Verb, err)
		}
		switch kind {
		case wire.Stdout, wire.Stderr:
			w := stdout
			if kind == wire.Stderr {
				w = stderr
			}
			if w != nil {
				if _, err := w.Write(payload); err != nil {
					return 0, err
				}
			}
		case wire.Exit:
			code, err := strconv.Atoi(string(payload))
			select {
			case failed := <-sent:
				err = errors.Join(err, failed)
			default: // a program need not read all its input
			}
			return code, err
		case wire.Failure:
			return 0, errors.New(string(payload))
		}
	}
}

// Inside says whether this process runs in such a host.
func Inside() bool { return os.Getenv(insideVariable) != "" }

// Extent is how much of what can run in such a host is to run.
type Extent int

// Extents, each with what the one before has.
const (
	None Extent = iota // it takes minutes
	Core               // as part of all tests
	All
)

// wholeVariable asks for All; the host's tests inherit it.
const wholeVariable = "MICROPOD_KVMHOST"

// Wanted is how much is asked for: All by make kvmhost, Core by make test.
func Wanted() Extent {
	switch {
	case os.Getenv(wholeVariable) != "":
		return All
	case os.Getenv(requiredVariable) != "":
		return Core
	default:
		return None
	}
}

// Need skips a test that more is wanted for than is.
func Need(t *testing.T, e Extent) {
	t.Helper()
	if Wanted() >= e {
		return
	}
	if e == Core {
		t.Skip("boots a KVM host in software and machines in it: make test and make kvmhost run it")
	}
	t.Skip("takes minutes in a KVM host in software: make kvmhost runs it")
}

const insideVariable = "MICROPOD_IN_KVMHOST"
