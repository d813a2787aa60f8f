// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/network"
	"github.com/micropod/micropod/internal/network/portproxy"
)

const (
	atOnce   = 20 // slots, or containers of CNI
	tenth    = 0.1
	fullHost = 1.2 // times the empty host's figure
)

// netHost is a network namespace that is a host of its own, kept by a process.
type netHost struct {
	keeper *exec.Cmd
	path   string
}

func newNetHost() (*netHost, error) {
	cmd := exec.Command("sleep", "infinity")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNET}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("making a network namespace: %w", err)
	}
	return &netHost{cmd, fmt.Sprintf("/proc/%d/ns/net", cmd.Process.Pid)}, nil
}

func (n *netHost) close() {
	_ = n.keeper.Process.Kill()
	_ = n.keeper.Wait()
}

// output runs a command inside.
func (n *netHost) output(c *exec.Cmd) (string, error) {
	var text string
	err := within(n.path, func() (err error) {
		text, err = output(c)
		return err
	})
	return text, err
}

// within runs f on a thread in the namespace; processes that it starts are there too.
func within(path string, f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		ns, err := os.Open(path)
		if err == nil {
			defer ns.Close()
			err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// measureNet times what networks cost a start and an end, on empty and on full hosts, with the
// plugins of CNI as peers.
func measureNet(ctx context.Context, s *setup, r *report) error {
	add, del, many, err := measureCNI(ctx, s, r)
	if err != nil {
		return err
	}
	empty, err := s.measureSlots(ctx, "", r, 0, 0)
	if err != nil {
		return err
	}
	full, err := s.measureSlots(ctx, ", 200 networks and 1,000 ports on the host", r, 200, 1000)
	if err != nil {
		return err
	}
	for i, f := range []func(*slotTimes) []float64{
		func(t *slotTimes) []float64 { return t.pool }, func(t *slotTimes) []float64 { return t.fresh },
		func(t *slotTimes) []float64 { return t.release }, func(t *slotTimes) []float64 { return t.many },
	} {
		what := []string{"from the pool", "made fresh", "taken down", "20 at once"}[i]
		r.add("a slot "+what+" on a full host", "x", []float64{median(f(full)) / median(f(empty))}, fullHost, "times the empty host's")
	}
	if add == nil {
		return nil
	}
	r.add("a slot made fresh, against CNI's ADD", "x", []float64{median(empty.fresh) / median(add)}, tenth, "both with one published port")
	r.add("a slot taken down, against CNI's DEL", "x", []float64{median(empty.release) / median(del)}, tenth, "")
	r.add("20 slots at once, against 20 ADDs", "x", []float64{median(empty.many) / median(many)}, tenth, "made fresh, one published port each")
	return nil
}

// measureSlots times slots on a host that has networks and published ports already.
func (s *setup) measureSlots(ctx context.Context, where string, r *report, networks, ports int) (*slotTimes, error) {
	t := &slotTimes{}
	for _, part := range []struct {
		spare   int
		measure func(context.Context, *network.Host, network.Network, int) error
	}{{4, t.measurePool}, {0, t.measureFresh}, {0, t.measureMany}} {
		if err := s.onHost(ctx, part.spare, networks, ports, func(h *network.Host, n network.Network) error {
			return part.measure(ctx, h, n, s.runs)
		}); err != nil {
			return nil, err
		}
	}
	r.add("a network slot from the pool"+where, "ms", t.pool, 1, "addresses given, on its bridge, guard open")
	r.add("a network slot made fresh"+where, "ms", t.fresh, 0, "with one published port")
	r.add("a network slot taken down"+where, "ms", t.release, 0, "for its caller; with one published port")
	r.add("20 network slots at once"+where, "ms", t.many, 0, "made fresh, one published port each")
	return t, nil
}

// onHost runs f on a host of its own that is as full as told.
func (s *setup) onHost(ctx context.Context, spare, networks, ports int, f func(*network.Host, network.Network) error) (err error) {
	host, err := newNetHost()
	if err != nil {
		return err
	}
	defer host.close()
	dir, err := os.MkdirTemp(s.dir, "net")
	if err != nil {
		return err
	}
	h, _, err := network.Open(network.Config{
		Instance: dir, RunDir: dir, NetNS: host.path, Spare: spare, NICs: 1,
		Proxy: []string{filepath.Join(s.bin, "micropodd"), portproxy.Verb},
	}, nil, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.Prune(), h.Close()) }()
	n, err := h.CreateNetwork(network.NetworkRequest{ID: "bench", Name: "bench"})
	if err != nil {
		return err
	}
	if err := fill(ctx, h, n, networks, ports); err != nil {
		return err
	}
	return f(h, n)
}

// fill gives a host networks and published ports, 100 to a machine.
func fill(ctx context.Context, h *network.Host, n network.Network, networks, ports int) error {
	for i := range networks {
		if _, err := h.CreateNetwork(network.NetworkRequest{ID: fmt.Sprint("n", i), Name: fmt.Sprint("n", i)}); err != nil {
			return err
		}
	}
	const each, first = 100, 10000
	for i := 0; i < ports; i += each {
		slot, err := h.TakeSlot(ctx, request(n))
		if err != nil {
			return err
		}
		var list []network.Port
		for p := range each {
			list = append(list, network.Port{HostPort: uint16(first + i + p), Port: 80, Protocol: "tcp"})
		}
		if _, err := h.Publish(ctx, slot.ID, list); err != nil {
			return err
		}
	}
	return nil
}

func request(n network.Network) network.SlotRequest {
	return network.SlotRequest{UID: 1, GID: 1, Interfaces: []network.InterfaceRequest{{Network: n.ID}}}
}

type slotTimes struct{ pool, fresh, release, many []float64 }

// refill is time enough for the pool to be full again.
const refill = 100 * time.Millisecond

// measurePool takes slots one by one from a pool that had time.
func (t *slotTimes) measurePool(ctx context.Context, h *network.Host, n network.Network, runs int) error {
	for range 3 * runs {
		time.Sleep(refill)
		began := time.Now()
		slot, err := h.TakeSlot(ctx, request(n))
		if err != nil {
			return err
		}
		t.pool = append(t.pool, milliseconds(time.Since(began)))
		if err := h.ReleaseSlot(slot.ID); err != nil {
			return err
		}
	}
	return nil
}

// measureFresh takes slots that have to be made, with a port, and gives them back.
func (t *slotTimes) measureFresh(ctx context.Context, h *network.Host, n network.Network, runs int) error {
	for range 2 * runs {
		time.Sleep(refill)
		began := time.Now()
		slot, err := takeFresh(ctx, h, n)
		if err != nil {
			return err
		}
		t.fresh = append(t.fresh, milliseconds(time.Since(began)))
		began = time.Now()
		if err := h.ReleaseSlot(slot.ID); err != nil {
			return err
		}
		t.release = append(t.release, milliseconds(time.Since(began)))
	}
	return nil
}

func takeFresh(ctx context.Context, h *network.Host, n network.Network) (*network.Slot, error) {
	slot, err := h.TakeSlot(ctx, request(n))
	if err != nil {
		return nil, err
	}
	_, err = h.Publish(ctx, slot.ID, []network.Port{{Port: 80, Protocol: "tcp"}})
	return slot, err
}

// measureMany takes many at once.
func (t *slotTimes) measureMany(ctx context.Context, h *network.Host, n network.Network, _ int) error {
	for range rounds {
		var slots [atOnce]*network.Slot
		took, err := allAtOnce(func(i int) (err error) {
			slots[i], err = takeFresh(ctx, h, n)
			return err
		})
		if err != nil {
			return err
		}
		t.many = append(t.many, took)
		for _, slot := range slots {
			if err := h.ReleaseSlot(slot.ID); err != nil {
				return err
			}
		}
		time.Sleep(refill)
	}
	return nil
}

// rounds is how often many are taken at once.
const rounds = 3

// allAtOnce is how long it takes until the last of them is done, in milliseconds.
func allAtOnce(do func(i int) error) (float64, error) {
	var all sync.WaitGroup
	errs := make([]error, atOnce)
	began := time.Now()
	for i := range atOnce {
		all.Go(func() { errs[i] = do(i) })
	}
	all.Wait()
	return milliseconds(time.Since(began)), errors.Join(errs...)
}

func median(samples []float64) float64 { return quantile(slices.Sorted(slices.Values(samples)), 0.5) }
