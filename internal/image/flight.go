// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"
	"sync"
)

// flights do equal work once for all who ask for it at the same time. The
// work's context ends when the last of them has gone, not with the first.
type flights[V any] struct {
	mu      sync.Mutex
	byKey   map[string]*flight[V]
	stopped bool
}

type flight[V any] struct {
	cancel  context.CancelCauseFunc
	board   *board
	waiting int
	dying   bool          // cancelled: newcomers wait for its end, then start anew
	done    chan struct{} // closed when val and err are set
	val     V
	err     error
}

// do runs work, or joins the run under the same key. listen, if not nil, hears
// the events that work posts, and none after do has returned.
func (g *flights[V]) do(ctx context.Context, key string, listen func(Event), work func(context.Context, func(Event)) (V, error)) (V, error) {
	for ctx.Err() == nil {
		f, joined, err := g.join(ctx, key, work)
		if err != nil {
			var zero V
			return zero, err
		}
		if !joined {
			select {
			case <-f.done:
			case <-ctx.Done():
			}
			continue
		}
		return g.wait(ctx, f, listen)
	}
	var zero V
	return zero, context.Cause(ctx)
}

// join finds or starts the flight; a dying one is not joined.
func (g *flights[V]) join(ctx context.Context, key string, work func(context.Context, func(Event)) (V, error)) (f *flight[V], joined bool, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.stopped {
		return nil, false, ErrClosed
	}
	if f := g.byKey[key]; f != nil {
		if !f.dying {
			f.waiting++
		}
		return f, !f.dying, nil
	}
	wctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	f = &flight[V]{cancel: cancel, board: newBoard(), waiting: 1, done: make(chan struct{})}
	if g.byKey == nil {
		g.byKey = map[string]*flight[V]{}
	}
	g.byKey[key] = f
	go func() {
		f.val, f.err = work(wctx, f.board.post)
		g.mu.Lock()
		delete(g.byKey, key)
		g.mu.Unlock()
		f.board.close()
		cancel(nil)
		close(f.done)
	}()
	return f, true, nil
}

func (g *flights[V]) wait(ctx context.Context, f *flight[V], listen func(Event)) (V, error) {
	stop := f.board.watch(listen)
	select {
	case <-f.done:
		stop(false)
		return f.val, f.err
	case <-ctx.Done():
	}
	stop(true)
	g.mu.Lock()
	f.waiting--
	last := f.waiting == 0
	f.dying = f.dying || last
	g.mu.Unlock()
	if last {
		f.cancel(context.Cause(ctx))
		<-f.done // nothing goes on in the caller's name after it was told so
	}
	var zero V
	return zero, context.Cause(ctx)
}

// stop cancels all work, waits for its end and refuses more.
func (g *flights[V]) stop() {
	g.mu.Lock()
	g.stopped = true
	var all []*flight[V]
	for _, f := range g.byKey {
		f.dying = true
		f.cancel(ErrClosed)
		all = append(all, f)
	}
	g.mu.Unlock()
	for _, f := range all {
		<-f.done
	}
}
