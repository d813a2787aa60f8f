// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"testing"
)

// TestBoard: watchers that come at any moment see the last event of each part,
// in its order, and none after they have stopped.
func TestBoard(t *testing.T) {
	t.Parallel()
	for range 200 {
		b := newBoard()
		var wg sync.WaitGroup
		wg.Go(func() {
			for i := range 50 {
				b.post(Event{ID: strconv.Itoa(i % 3), Done: int64(i)})
			}
			b.close()
		})
		for range 3 {
			wg.Go(func() {
				last := map[string]int64{}
				stopped := false
				stop := b.watch(func(e Event) {
					if e.Done < last[e.ID] || stopped {
						t.Errorf("event %+v after %d, stopped %v", e, last[e.ID], stopped)
					}
					last[e.ID] = e.Done
				})
				stop(false)
				stopped = true
				if last["0"] != 48 || last["1"] != 49 || last["2"] != 47 {
					t.Errorf("last events were %v, want 48, 49 and 47", last)
				}
			})
		}
		wg.Wait()
	}
}

// TestBoardSlowWatcher: posting does not wait for one who does not listen.
func TestBoardSlowWatcher(t *testing.T) {
	t.Parallel()
	b := newBoard()
	hang := make(chan struct{})
	stop := b.watch(func(Event) { <-hang })
	for i := range 1000 {
		b.post(Event{ID: strconv.Itoa(i)})
	}
	close(hang)
	b.close()
	stop(true)
}

// TestFlights: equal keys share a run; it ends when the last who waits has
// gone; who comes while it is ending gets a run of its own.
func TestFlights(t *testing.T) {
	t.Parallel()
	var g flights[int]
	runs := 0
	started, cancelled, finish := make(chan struct{}, 2), make(chan struct{}), make(chan struct{})
	work := func(ctx context.Context, _ func(Event)) (int, error) {
		runs++
		if runs > 1 {
			return runs, nil
		}
		started <- struct{}{}
		<-ctx.Done()
		close(cancelled)
		<-finish
		return 0, context.Cause(ctx)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			if _, err := g.do(ctx, "k", nil, work); !errors.Is(err, context.Canceled) {
				t.Errorf("cancelled: %v", err)
			}
		})
	}
	<-started
	cancel()
	<-cancelled
	wg.Go(func() {
		if n, err := g.do(context.Background(), "k", nil, work); n != 2 || err != nil {
			t.Errorf("newcomer got run %d, %v; want its own, 2", n, err)
		}
	})
	gone, leave := context.WithCancel(context.Background())
	leave()
	if _, err := g.do(gone, "k", nil, work); !errors.Is(err, context.Canceled) {
		t.Errorf("a newcomer that leaves: %v", err)
	}
	close(finish)
	wg.Wait()
	g.stop()
	if _, err := g.do(context.Background(), "k", nil, work); !errors.Is(err, ErrClosed) {
		t.Errorf("after stop: %v, want ErrClosed", err)
	}
}
