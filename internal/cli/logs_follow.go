// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

// logReader prints a container's log. When the daemon goes away while the log is
// followed, it goes on behind the last line printed: lines come in the order of
// their times, so that time and the number of lines printed with it are the place.
type logReader struct {
	app        *app
	request    *v1.LogsRequest
	timestamps bool

	last     time.Time // of the line printed last; zero: none yet
	sameTime int       // lines printed with that time
	within   [2]bool   // standard output, standard error: the last piece had no line's end
}

// run prints until the log ends, or while it is followed the container does.
func (l *logReader) run(ctx context.Context) error {
	lost := patience{limit: reconnectFor}
	for {
		progress, err := l.once(ctx)
		if err == nil || !l.request.Follow || !daemonGone(err) || ctx.Err() != nil {
			return err
		}
		if err := lost.wait(ctx, l.app, progress, err); err != nil {
			return err
		}
		l.resume()
	}
}

// resume asks for what follows the last line: from its time on, less what is printed of that time.
func (l *logReader) resume() {
	if !l.last.IsZero() {
		l.request.Tail, l.request.Since = -1, timestamppb.New(l.last)
	}
}

// once is one connection. progress tells that the daemon sent something on it.
func (l *logReader) once(ctx context.Context) (progress bool, err error) {
	stream, err := l.app.client.containers.Logs(ctx, connect.NewRequest(l.request))
	if err != nil {
		return false, err
	}
	defer stream.Close()
	again := l.sameTime
	for stream.Receive() {
		progress = true
		m := stream.Msg()
		if again > 0 && m.Time.AsTime().Equal(l.last) {
			again--
			continue
		}
		again = 0
		if err := l.print(m); err != nil {
			return progress, err
		}
	}
	return progress, stream.Err()
}

func (l *logReader) print(m *v1.LogsResponse) error {
	w, which := io.Writer(l.app.out), 0
	if m.Stderr {
		w, which = l.app.err, 1
	}
	at := m.Time.AsTime()
	if l.timestamps && !l.within[which] {
		if _, err := fmt.Fprintf(w, "%s ", at.UTC().Format("2006-01-02T15:04:05.000000000Z")); err != nil {
			return err
		}
	}
	if _, err := w.Write(m.Data); err != nil {
		return err
	}
	l.within[which] = len(m.Data) > 0 && m.Data[len(m.Data)-1] != '\n'
	if at.Equal(l.last) {
		l.sameTime++
	} else {
		l.last, l.sameTime = at, 1
	}
	return nil
}

// patience is how long a lost daemon is waited for, from its last sign of life on.
type patience struct {
	limit time.Duration
	since time.Time
}

// wait makes sure that a daemon listens again after a connection was lost to cause.
// progress tells that the connection had worked.
func (p *patience) wait(ctx context.Context, a *app, progress bool, cause error) error {
	if progress || p.since.IsZero() {
		p.since = time.Now()
	}
	for {
		if time.Since(p.since) > p.limit {
			return fmt.Errorf("reconnecting to the daemon: %w", cause)
		}
		select {
		case <-time.After(reconnectPause):
		case <-ctx.Done():
			return ctx.Err()
		}
		err := a.ensureDaemon(ctx)
		var gone *daemonError
		if err == nil || !errors.As(err, &gone) || !gone.mayComeBack {
			return err
		}
	}
}
