// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package container_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.uber.org/goleak"

	"github.com/micropod/micropod/internal/container"
	"github.com/micropod/micropod/internal/container/containertest"
	"github.com/micropod/micropod/internal/container/logfile"
	"github.com/micropod/micropod/internal/container/ocispec"
	"github.com/micropod/micropod/internal/events"
	"github.com/micropod/micropod/internal/image"
	"github.com/micropod/micropod/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// programs are what the guests of these tests can run.
var programs = map[string]containertest.Program{
	"true": func(*containertest.Process) containertest.Exit { return containertest.Exit{} },
	"exit": func(p *containertest.Process) containertest.Exit {
		code, _ := strconv.Atoi(p.Spec.Args[1])
		return containertest.Exit{Code: uint32(code)}
	},
	"echo": func(p *containertest.Process) containertest.Exit {
		fmt.Fprintln(p.Stdout, strings.Join(p.Spec.Args[1:], " "))
		fmt.Fprintln(p.Stderr, "to stderr")
		return containertest.Exit{}
	},
	"cat": func(p *containertest.Process) containertest.Exit {
		_, _ = io.Copy(p.Stdout, p.Stdin)
		return containertest.Exit{}
	},
	"many": func(p *containertest.Process) containertest.Exit { // numbered lines of 10 bytes
		n, _ := strconv.Atoi(p.Spec.Args[1])
		for i := range n {
			if _, err := fmt.Fprintf(p.Stdout, "%09d\n", i); err != nil {
				break
			}
		}
		return containertest.Exit{}
	},
	"sleep": func(p *containertest.Process) containertest.Exit {
		for {
			select {
			case s := <-p.Signals:
				if s == 15 || s == 2 {
					return containertest.Exit{Code: 128 + s, Signal: s}
				}
				fmt.Fprintln(p.Stdout, "signal", s)
			case <-p.Killed:
				return containertest.Exit{}
			}
		}
	},
	"fail":     func(*containertest.Process) containertest.Exit { return containertest.Exit{Code: 3} },
	"stubborn": func(p *containertest.Process) containertest.Exit { <-p.Killed; return containertest.Exit{} },
	"wedged":   func(p *containertest.Process) containertest.Exit { <-p.Killed; return containertest.Exit{} },
	"oom": func(*containertest.Process) containertest.Exit {
		return containertest.Exit{Code: 137, Signal: 9, OOM: true}
	},
}

// world is a daemon's containers over machines in memory.
type world struct {
	*container.Service
	t        testing.TB
	machines *containertest.Machines
	images   *containertest.Images
	dir      string
	db       *store.DB
	config   container.ServiceConfig
}

func newWorld(t testing.TB, change ...func(*container.ServiceConfig)) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), machines: containertest.NewMachines(programs)}
	w.images = containertest.NewImages(map[string]*image.Image{
		"box":   {Config: imagespec.Image{Config: imagespec.ImageConfig{Cmd: []string{"true"}, Env: []string{"FROM=image"}}}},
		"alien": {Config: imagespec.Image{Platform: imagespec.Platform{OS: "linux", Architecture: "s390x"}}},
	})
	w.config = container.ServiceConfig{
		Machines: w.machines, Images: w.images, Dir: filepath.Join(w.dir, "containers"), Events: new(events.Bus),
		DrainLimit: 5 * time.Second, KillLimit: 200 * time.Millisecond, InputGrace: 20 * time.Millisecond,
	}
	for _, c := range change {
		c(&w.config)
	}
	w.start()
	t.Cleanup(func() {
		for _, i := range w.List(container.Filter{All: true}) {
			if _, err := w.Remove(context.Background(), i.ID, true); err != nil {
				var gone *container.NotFoundError
				if !errors.As(err, &gone) {
					t.Errorf("cleaning up: %v", err)
				}
			}
		}
		w.stop()
	})
	return w
}

func (w *world) start() {
	w.t.Helper()
	var err error
	if w.db, err = store.Open(filepath.Join(w.dir, "state.db")); err != nil {
		w.t.Fatal(err)
	}
	w.config.DB = w.db
	if w.Service, err = container.New(w.config); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) stop() {
	w.Close()
	_ = w.db.Close()
}

// restart is the daemon's end and the next one's begin; machines go on.
func (w *world) restart() {
	w.t.Helper()
	w.stop()
	w.start()
}

func config(command ...string) container.Config {
	return container.Config{Image: "box", Config: ocispec.Config{Command: command}}
}

func (w *world) create(c container.Config) container.Info {
	w.t.Helper()
	info, _, err := w.Create(w.soon(), c, nil)
	if err != nil {
		w.t.Fatalf("creating: %v", err)
	}
	return info
}

func (w *world) started(c container.Config) container.Info {
	w.t.Helper()
	info, err := w.Start(w.soon(), w.create(c).ID)
	if err != nil {
		w.t.Fatalf("starting: %v", err)
	}
	return info
}

func (w *world) waited(ref string) container.Exit {
	w.t.Helper()
	exit, err := w.Wait(w.soon(), ref, "")
	if err != nil {
		w.t.Fatalf("waiting: %v", err)
	}
	return exit
}

func (w *world) state(ref string, want container.State) container.Info {
	w.t.Helper()
	info, err := w.Get(ref)
	if err != nil || info.State != want {
		w.t.Errorf("the container is %v, %v; want %v", info.State, err, want)
	}
	return info
}

func (w *world) process(i container.Info, exec string) *containertest.Process {
	w.t.Helper()
	g := w.machines.Guest(i.MachineID)
	if g == nil {
		w.t.Fatal("the machine does not run")
	}
	p := g.Process(i.ID, exec)
	if p == nil {
		w.t.Fatalf("the guest has no process %q", exec)
	}
	return p
}

// soon bounds what a broken service would wait for.
func (w *world) soon() context.Context {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	w.t.Cleanup(cancel)
	return ctx
}

func (w *world) eventually(what string, holds func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("not so after 20 s: %s", what)
		}
	}
}

func (w *world) gone(ref string) {
	w.t.Helper()
	w.eventually("the container is removed", func() bool {
		var not *container.NotFoundError
		_, err := w.Get(ref)
		return errors.As(err, &not)
	})
}

func (w *world) logs(ref string) (stdout, stderr string) {
	w.t.Helper()
	var text [2]strings.Builder
	err := w.Logs(w.soon(), ref, logfile.ReadOptions{Tail: -1, Stdout: true, Stderr: true}, func(e logfile.Entry) error {
		text[e.Stream].Write(e.Data)
		return nil
	})
	if err != nil {
		w.t.Errorf("reading the log: %v", err)
	}
	return text[logfile.Stdout].String(), text[logfile.Stderr].String()
}

// client is an attached one that takes everything and acknowledges.
type client struct {
	*container.Attachment
	mu             sync.Mutex
	stdout, stderr strings.Builder
	at             [2]uint64
	done           chan struct{}
	exit           container.Exit
	err            error
}

func (w *world) attach(ref string, o container.AttachOptions) *client {
	w.t.Helper()
	a, err := w.Attach(w.soon(), ref, o)
	if err != nil {
		w.t.Fatalf("attaching: %v", err)
	}
	c := &client{Attachment: a, done: make(chan struct{})}
	ctx := w.soon()
	go func() {
		defer close(c.done)
		defer a.Close()
		c.exit, c.err = a.Output(ctx, c.take)
	}()
	return c
}

func (c *client) take(stderr bool, offset uint64, p []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := 0
	if stderr {
		i = 1
		c.stderr.Write(p)
	} else {
		c.stdout.Write(p)
	}
	c.at[i] = offset + uint64(len(p))
	c.Ack(c.at[0], c.at[1])
	return nil
}

func (c *client) output() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stdout.String()
}

// all waits for the end.
func (c *client) all(t testing.TB) (stdout, stderr string, exit container.Exit) {
	t.Helper()
	<-c.done
	if c.err != nil {
		t.Errorf("the attachment ended with %v", c.err)
	}
	return c.stdout.String(), c.stderr.String(), c.exit
}

func zero() *uint64 { return new(uint64) }

var bothFromStart = container.AttachOptions{Stdout: true, Stderr: true, StdoutOffset: zero(), StderrOffset: zero()}

func (w *world) nothingLeft() {
	w.t.Helper()
	if n := w.machines.Count(); n != 0 {
		w.t.Errorf("%d machines are left", n)
	}
	if n := w.images.Held(); n != 0 {
		w.t.Errorf("%d images are still held", n)
	}
	if left, _ := os.ReadDir(w.config.Dir); len(left) != 0 {
		w.t.Errorf("folders are left: %v", left)
	}
	if l := w.List(container.Filter{All: true}); len(l) != 0 {
		w.t.Errorf("containers are left: %v", l)
	}
}

// editRecord changes a container's stored record while no daemon runs.
func (w *world) editRecord(id string, edit func(map[string]any)) {
	w.t.Helper()
	db, err := store.Open(filepath.Join(w.dir, "state.db"))
	if err != nil {
		w.t.Fatal(err)
	}
	defer db.Close()
	records, err := store.NewBucket[map[string]any](db, "containers", 1)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := records.Update(id, func(r *map[string]any) error { edit(*r); return nil }); err != nil {
		w.t.Fatal(err)
	}
}
