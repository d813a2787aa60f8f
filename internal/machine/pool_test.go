// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	agentv1 "github.com/micropod/micropod/api/agent/v1"
	"github.com/micropod/micropod/internal/vmm"
)

func rehearsal() *agentv1.StartContainerRequest {
	return &agentv1.StartContainerRequest{Id: "rehearsal", Spec: []byte("{}")}
}

// newPool is a world with a pool, and an image.
func newPool(t *testing.T, bounds PoolBounds) (*world, Spec) {
	t.Helper()
	w := newTemplates(t, func(c *Config) { c.Pool, c.UIDFirst, c.UIDCount = bounds, 1<<30, 1000 })
	w.poolPatience, w.poolDelay = time.Millisecond, 10*time.Millisecond
	image := filepath.Join(w.dir, "image.erofs")
	write(t, image, "")
	return w, Spec{Image: image}
}

// poolHas waits until the pool has n machines and makes no more.
func (w *world) poolHas(n int) {
	w.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		w.pool.mu.Lock()
		busy := w.pool.filling
		w.pool.mu.Unlock()
		if !busy && w.PoolReady() == n {
			return
		}
	}
	w.t.Fatalf("the pool has %d machines, want %d", w.PoolReady(), n)
}

// run starts a machine and tells of a container in it, as the container service does.
func (w *world) runOne(s Spec) (Info, *machine) {
	w.t.Helper()
	i := w.start(s)
	w.Expect(i.ID, rehearsal)
	m, err := w.find(i.ID)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.get(i.ID), m
}

func TestPoolMachineBecomesAnother(t *testing.T) {
	t.Parallel()
	w, spec := newPool(t, PoolBounds{Max: 1})
	first, m := w.runOne(spec)
	if m.record().Body != "" {
		t.Errorf("the first machine came from an empty pool: %+v", m.record())
	}
	w.poolHas(1)
	if n := len(w.List()); n != 1 || w.host.Running() != 2 {
		t.Errorf("%d machines are listed and %d run, want 1 and 2", n, w.host.Running())
	}
	steps := w.count(nil)
	disk, err := os.Stat(w.pool.last.ready[0].diskPath())
	if err != nil {
		t.Fatal(err)
	}
	spec.Name = "named"
	second, m := w.runOne(spec)
	rec := m.record()
	if rec.Body == "" || steps("restore")+steps("start") != 0 || second.Template == "" {
		t.Fatalf("the second machine was not taken from the pool: %+v", rec)
	}
	v := w.host.VMM(second.PID)
	if who := v.Identified(); who.Hostname != "named" || who.MachineId != rec.MachineID {
		t.Errorf("it calls itself %v", who)
	}
	if mine, err := os.Stat(m.diskPath()); err != nil || !os.SameFile(mine, disk) {
		t.Errorf("its disk is not the one that its guest has mounted: %v", err)
	}
	if v.Config().UID != rec.UID || rec.VMM.ID != rec.Body {
		t.Errorf("its record is %+v", rec)
	}
	if _, err = os.Stat(w.diskDir(rec.Body)); !os.IsNotExist(err) {
		t.Errorf("the disk of the pool's machine is left: %v", err)
	}
	w.poolHas(1)
	if third := w.create(spec0(spec)); w.get(third.ID).State != Stopped {
		t.Error("a machine cannot be made beside it")
	}

	// It lives on through a restart, its VMM under the old name; the pool ends with its daemon.
	w.restart()
	if n := w.host.Running(); n != 2 {
		t.Errorf("%d VMMs run after a restart, want those of the two machines", n)
	}
	w.want(w.get("named"), Running, "")
	if err := w.Stop(t.Context(), "named", time.Second, false); err != nil {
		t.Error(err)
	}
	w.want(w.get("named"), Stopped, "stopped")
	if err := w.Start(t.Context(), "named"); err != nil {
		t.Fatal(err)
	}
	if again, _ := w.find("named"); again.record().Body != "" {
		t.Errorf("started anew it still is %+v", again.record())
	}
	if _, err := os.Stat(w.runDir(rec.Body)); !os.IsNotExist(err) {
		t.Errorf("the folder of the pool's machine is left: %v", err)
	}
	w.want(w.get(first.ID), Running, "")
}

// spec0 is the spec for a machine without the name.
func spec0(s Spec) Spec { s.Name = ""; return s }

func TestWhatThePoolCannotServe(t *testing.T) {
	t.Parallel()
	w, spec := newPool(t, PoolBounds{Max: 2})
	w.runOne(spec)
	w.poolHas(1)
	other := filepath.Join(w.dir, "other.erofs")
	write(t, other, "")
	for what, edit := range map[string]func(*Spec){
		"another image":  func(s *Spec) { s.Image = other },
		"no image":       func(s *Spec) { s.Image = "" },
		"memory":         func(s *Spec) { s.Memory = 1 << 30 },
		"vCPUs":          func(s *Spec) { s.VCPUs = 2 },
		"arguments":      func(s *Spec) { s.Args = "quiet" },
		"another engine": func(s *Spec) { s.Engine = "other" },
	} {
		s := spec
		edit(&s)
		i := w.start(s)
		if m, _ := w.find(i.ID); m.record().Body != "" {
			t.Errorf("%s: the machine was taken from the pool", what)
		}
	}
	w.poolHas(1)
}

func TestPoolForecast(t *testing.T) {
	t.Parallel()
	now := time.Now()
	at := func(seconds ...float64) (starts []time.Time) {
		for _, s := range seconds {
			starts = append(starts, now.Add(time.Duration(s*float64(time.Second))))
		}
		return starts
	}
	for what, c := range map[string]struct {
		starts []time.Time
		last   bool
		want   int
	}{
		"nothing":               {nil, false, 0},
		"nothing, but the last": {nil, true, 2},
		"one":                   {at(-1), false, 1},
		"one long ago":          {at(-601), false, 0},
		"a burst a while ago":   {at(-300, -299.5, -299, -298.5, -1), false, 4},
		"more than may be":      {at(-9, -8.9, -8.8, -8.7, -8.6, -8.5, -8.4), false, 5},
		"a steady trickle":      {at(-50, -40, -30, -20, -10), false, 1},
	} {
		p := pool{}
		shape := &poolShape{starts: c.starts}
		if c.last {
			p.last = shape
		}
		if got := p.wanted(shape, now, PoolBounds{Min: 2, Max: 5}); got != c.want {
			t.Errorf("%s: %d machines are wanted, want %d", what, got, c.want)
		}
	}
	if p := (pool{shapes: map[string]*poolShape{"a": {ready: make([]*machine, 3)}}}); p.room(PoolBounds{Max: 3}) || !p.room(PoolBounds{Max: 4}) || p.room(PoolBounds{Max: 4, Bytes: 4*poolMachineBytes - 1}) {
		t.Error("the bounds do not hold")
	}
}

func TestPoolShrinks(t *testing.T) {
	t.Parallel()
	w, spec := newPool(t, PoolBounds{Max: 2})
	w.runOne(spec)
	w.poolHas(1)
	w.thin(time.Now())
	w.poolHas(1)
	w.thin(time.Now().Add(2 * poolMemory))
	w.poolHas(0)
	for deadline := time.Now().Add(10 * time.Second); w.host.Running() > 1; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d VMMs run, want the one machine's", w.host.Running())
		}
	}
}

func TestPoolMachineThatDies(t *testing.T) {
	t.Parallel()
	w, spec := newPool(t, PoolBounds{Max: 1})
	first, _ := w.runOne(spec)
	w.poolHas(1)
	for _, v := range w.host.All() {
		if v.Config().ID != first.ID {
			v.End(vmm.Exit{Code: 1, Reason: vmm.Crashed, At: time.Now()})
		}
	}
	if _, m := w.runOne(spec); m.record().Body != "" || m.state() != Running {
		t.Errorf("a dead machine of the pool was taken: %+v", m.record())
	}
	w.poolHas(1)
}

func TestPoolMachineThatDoesNotDo(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"its disk gone", "identify"} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			w, spec := newPool(t, PoolBounds{Max: 1})
			w.runOne(spec)
			w.poolHas(1)
			if at == "its disk gone" {
				if err := os.Remove(w.pool.last.ready[0].diskPath()); err != nil {
					t.Fatal(err)
				}
			}
			w.count(func(step string, n int) error {
				if step == at && n == 1 {
					return errors.New("no luck")
				}
				return nil
			})
			i, m := w.runOne(spec)
			if rec := m.record(); rec.Body != "" || i.State != Running || !w.host.VMM(i.PID).Restored() {
				t.Errorf("the machine is %+v", rec)
			}
			w.poolHas(1)
			if n := w.host.Running(); n != 3 {
				t.Errorf("%d VMMs run, want two machines' and the pool's", n)
			}
		})
	}
}

func TestPoolThatCannotBeFilled(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"container", "delete container", "disk"} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			w, spec := newPool(t, PoolBounds{Max: 1})
			i := w.start(spec)
			steps := w.count(func(step string, _ int) error {
				if step == at {
					return errors.New("out of order")
				}
				return nil
			})
			w.Expect(i.ID, rehearsal)
			w.poolHas(0)
			if n := steps(at); n != maxPoolFailures {
				t.Errorf("it was tried %d times, want %d", n, maxPoolFailures)
			}
			w.noDrafts(1)
		})
	}
}

func TestPoolUnderLoad(t *testing.T) {
	t.Parallel()
	w, spec := newPool(t, PoolBounds{Max: 4})
	w.runOne(spec)
	w.poolHas(1)
	var all sync.WaitGroup
	for range 12 {
		all.Go(func() {
			i, err := w.Create(context.Background(), spec)
			if err == nil {
				err = w.Start(context.Background(), i.ID)
			}
			if err != nil {
				t.Error(err)
				return
			}
			w.Expect(i.ID, rehearsal)
			if err := w.Delete(context.Background(), i.ID, true); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	w.poolHas(4)
	uids := map[int]bool{}
	for _, v := range w.host.All() {
		if uids[v.Config().UID] {
			t.Error("two VMMs have one user id")
		}
		uids[v.Config().UID] = true
	}
	entries, err := os.ReadDir(filepath.Join(w.dir, "run", "machines"))
	if err != nil || len(entries) != 5 {
		t.Errorf("%d folders of machines, %v; want 5", len(entries), err)
	}
	if !strings.Contains(w.poolKey(spec), "image.erofs") {
		t.Errorf("the key is %q", w.poolKey(spec))
	}
}

// What was written to a machine's disk before its first start, by a copy into it perhaps, must not be lost.
func TestPoolKeepsWrittenDisks(t *testing.T) {
	t.Parallel()
	w, spec := newPool(t, PoolBounds{Max: 1})
	w.runOne(spec)
	w.poolHas(1)
	i := w.create(spec)
	m, err := w.find(i.ID)
	if err != nil || !m.blankDisk() {
		t.Fatalf("the disk of a new machine is taken for a written one: %v", err)
	}
	write(t, m.diskPath(), "mine")
	if err := w.Start(t.Context(), i.ID); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(m.diskPath()); m.record().Body != "" || string(data) != "mine" {
		t.Errorf("its disk holds %q (%v), its record is %+v", data, err, m.record())
	}
}

func TestPoolMachinesHandTheirPlacesOn(t *testing.T) {
	t.Parallel()
	lan := &places{all: map[string]*Joined{}}
	w := newTemplates(t, func(c *Config) {
		c.Pool, c.UIDFirst, c.UIDCount, c.Network, c.DefaultNetwork = PoolBounds{Max: 1}, 1<<30, 1000, lan, "lan"
	})
	w.poolPatience, w.poolDelay = time.Millisecond, 10*time.Millisecond
	image := filepath.Join(w.dir, "image.erofs")
	write(t, image, "")
	spec := Spec{Image: image, Network: NetworkSpec{Joins: []Join{{Network: "lan", Aliases: []string{"a"}}}, Ports: []Port{{GuestPort: 80, Protocol: "tcp"}}}}
	first, _ := w.runOne(spec)
	w.poolHas(1)
	ahead := lan.Joined(w.pool.last.ready[0].id)
	if ahead == nil || len(ahead.Ports) != 0 {
		t.Fatalf("the machine of the pool has joined %+v", ahead)
	}
	second, m := w.runOne(spec)
	mine := lan.Joined(second.ID)
	if m.record().Body == "" || mine == nil || mine.Endpoints[0].Addrs[0] != ahead.Endpoints[0].Addrs[0] || len(mine.Ports) != 1 || lan.Joined(m.record().Body) != nil {
		t.Errorf("the place is %+v, the pool's was %+v", mine, ahead)
	}
	if got := w.host.VMM(second.PID).Identified().Interfaces; len(got) != 1 || string(got[0].Mac) != string(ahead.Endpoints[0].MAC) {
		t.Errorf("its guest was told of %v", got)
	}
	if lan.Joined(first.ID).Endpoints[0].Addrs[0] == mine.Endpoints[0].Addrs[0] {
		t.Error("two machines have one address")
	}
	for what, join := range map[string]Join{"another network": {Network: "other"}, "an address": {Network: "lan", Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.99")}}} {
		s := spec
		s.Network.Joins = []Join{join}
		if w.poolKey(s) != "" {
			t.Errorf("the pool serves a machine with %s", what)
		}
	}
}
