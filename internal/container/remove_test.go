// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package container_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/micropod/micropod/internal/container"
)

// TestForceRemovesAnything: whatever a container does or waits for, within seconds and with all that it had.
func TestForceRemovesAnything(t *testing.T) {
	t.Parallel()
	hour := time.Hour
	hold := func(w *world, method string) (reached, release chan struct{}) {
		reached, release = make(chan struct{}), make(chan struct{})
		w.machines.Lock()
		defer w.machines.Unlock()
		w.machines.Before = func(m string) {
			if m == method {
				close(reached)
				<-release
			}
		}
		return reached, release
	}
	for name, prepare := range map[string]func(*world) string{
		"created":        func(w *world) string { return w.create(config()).ID },
		"running":        func(w *world) string { return w.started(config("sleep")).ID },
		"wedged":         func(w *world) string { return w.started(config("wedged")).ID },
		"restarting":     func(w *world) string { i := w.started(restarting("always", 0, "sleep")); w.inBackoff(i); return i.ID },
		"start failed":   func(w *world) string { i := w.create(config("nonesuch")); _, _ = w.Start(w.soon(), i.ID); return i.ID },
		"removed at end": func(w *world) string { c := config("sleep"); c.AutoRemove = true; return w.started(c).ID },
		"paused": func(w *world) string {
			i := w.started(config("sleep"))
			if err := w.Pause(w.soon(), i.ID); err != nil {
				w.t.Fatal(err)
			}
			return i.ID
		},
		"machine gone": func(w *world) string {
			i := w.started(config("sleep"))
			_ = w.machines.Delete(context.Background(), i.MachineID, true)
			return i.ID
		},
		"starting": func(w *world) string {
			i := w.create(config("sleep"))
			reached, release := hold(w, "StartContainer")
			go func() { _, _ = w.Start(context.Background(), i.ID) }()
			<-reached
			time.AfterFunc(50*time.Millisecond, func() { close(release) })
			return i.ID
		},
		"being stopped, with others that wait": func(w *world) string {
			i := w.started(config("stubborn"))
			for range 3 {
				go func() { _, _ = w.Restart(context.Background(), i.ID, container.StopOptions{Timeout: &hour}) }()
			}
			w.eventually("it is being stopped", func() bool { i, _ := w.Get(i.ID); return i.State == container.Stopping })
			return i.ID
		},
		"unreadable": func(w *world) string {
			i := w.started(config("sleep"))
			w.stop()
			w.editRecord(i.ID, func(r map[string]any) { r["State"] = "of tomorrow" })
			w.start()
			w.state(i.ID, container.Dead)
			return i.ID
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			id := prepare(w)
			began := time.Now()
			if _, err := w.Remove(w.soon(), id, true); err != nil {
				t.Fatalf("removing it: %v", err)
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("it took %s", took)
			}
			w.gone(id)
			w.nothingLeft()
			w.restart()
			w.nothingLeft()
		})
	}
}

func TestDeadContainer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	i := w.create(config("sleep"))
	w.stop()
	w.editRecord(i.ID, func(r map[string]any) { r["State"] = "of tomorrow" })
	w.start()
	if got := w.state(i.ID, container.Dead); !strings.Contains(got.Error, "cannot be read") {
		t.Errorf("it tells %q", got.Error)
	}
	var wrong *container.StateError
	if _, err := w.Start(w.soon(), i.ID); !errors.As(err, &wrong) {
		t.Errorf("starting it gave %v", err)
	}
	if _, err := w.Update(w.soon(), i.ID, container.Restart{Policy: "no"}); !errors.As(err, &wrong) {
		t.Errorf("updating it gave %v", err)
	}
	if _, err := w.Remove(w.soon(), i.ID, false); !errors.As(err, &wrong) {
		t.Errorf("removing it without force gave %v", err)
	}
	w.stop()
	w.editRecord(i.ID, func(r map[string]any) { r["State"] = "created" }) // as a newer daemon would read it
	w.start()
	w.state(i.ID, container.Created)
}

func TestStrayFoldersGo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	i := w.create(config())
	w.stop()
	stray := filepath.Join(w.config.Dir, strings.Repeat("ab", 32))
	if err := os.MkdirAll(stray, 0o700); err != nil {
		t.Fatal(err)
	}
	w.start()
	if _, err := os.Stat(stray); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a folder without a record is left: %v", err)
	}
	if _, err := os.Stat(filepath.Join(w.config.Dir, i.ID)); err != nil {
		t.Errorf("a container's own folder went: %v", err)
	}
}
