// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package lan

import (
	"context"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/micropod/micropod/internal/events"
	"github.com/micropod/micropod/internal/machine"
	"github.com/micropod/micropod/internal/network/mmds"
	"github.com/micropod/micropod/internal/network/portproxy"
	"github.com/micropod/micropod/internal/store"
)

// inOwn says in the environment that this process is the one in namespaces of its own.
const inOwn = "MICROPOD_LAN_TEST_NAMESPACES"

// TestMain runs the tests in mount and network namespaces of their own, so that nothing touches the host's; they need root.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && (os.Args[1] == portproxy.Verb || os.Args[1] == mmds.Verb) {
		serve := map[string]func(context.Context, []string) error{portproxy.Verb: portproxy.Main, mmds.Verb: mmds.Main}[os.Args[1]]
		fmt.Fprintln(os.Stderr, serve(context.Background(), os.Args[2:]))
		os.Exit(1)
	}
	flag.Parse()
	if os.Getenv(inOwn) != "" {
		if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "%v: %s\n", err, out)
			os.Exit(1)
		}
	}
	if os.Getenv(inOwn) != "" || os.Geteuid() != 0 {
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), inOwn+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	signal.Ignore(os.Interrupt) // the other gets it too
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// world is a service whose host is this process's own namespace, which all tests share: their folders tell them apart.
type world struct {
	*Service
	t   *testing.T
	dir string
	db  *store.DB
	bus *events.Bus
}

func newWorld(t *testing.T) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("making network namespaces needs root")
	}
	dir, err := os.MkdirTemp("", "lan")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, dir: dir, bus: new(events.Bus)}
	if w.db, err = store.Open(filepath.Join(dir, "state.db")); err != nil {
		t.Fatal(err)
	}
	w.open()
	t.Cleanup(func() {
		for _, p := range w.members {
			if err := w.Detach(context.Background(), p.Machine); err != nil {
				t.Error(err)
			}
		}
		if w.host != nil {
			if err := w.host.Prune(); err != nil {
				t.Error(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		if err := w.db.Close(); err != nil {
			t.Error(err)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return w
}

func (w *world) open() {
	w.t.Helper()
	s, err := Open(Config{
		DB: w.db, DataDir: w.dir, RunDir: w.dir, Events: w.bus, Spare: -1, Resolver: filepath.Join(w.dir, "resolv.conf"),
		Proxy: []string{"/proc/self/exe", portproxy.Verb}, Metadata: []string{"/proc/self/exe", mmds.Verb},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.Service = s
}

// again closes the service and opens the next on the same records, as a restart of the daemon does.
func (w *world) again() {
	w.t.Helper()
	if err := w.Close(); err != nil {
		w.t.Fatal(err)
	}
	w.open()
}

func (w *world) make(r Request) Info {
	w.t.Helper()
	i, err := w.Create(w.t.Context(), r)
	if err != nil {
		w.t.Fatal(err)
	}
	return i
}

func (w *world) attach(id string, spec machine.NetworkSpec) *machine.Joined {
	w.t.Helper()
	j, err := w.Attach(w.t.Context(), machine.AttachRequest{ID: id, UID: 12345, GID: 12345, NetworkSpec: spec})
	if err != nil {
		w.t.Fatal(err)
	}
	return j
}

func joins(names ...string) (list []machine.Join) {
	for _, name := range names {
		list = append(list, machine.Join{Network: name})
	}
	return list
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }
