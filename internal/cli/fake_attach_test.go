// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"sync"

	"connectrpc.com/connect"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

// attachStream is the daemon's end of Attach.
type attachStream = *connect.BidiStream[v1.AttachRequest, v1.AttachResponse]

func (d *fakeContainers) Exec(_ context.Context, r *connect.Request[v1.ExecRequest]) (*connect.Response[v1.ExecResponse], error) {
	c, err := d.find(r.Msg.Container)
	if err != nil {
		return nil, err
	}
	if !running(d.shown(c).State) {
		return nil, refusal(connect.CodeFailedPrecondition, "wrong_state", "container "+c.Name+" does not run", "start it: micropod start "+c.Name, 0)
	}
	p := &fakeProcess{daemon: d.fakeDaemon, args: r.Msg.Command, env: r.Msg.Env, tty: r.Msg.Tty, stdin: r.Msg.Stdin, size: r.Msg.Window}
	if err := p.start(); err != nil {
		return nil, err
	}
	id := ""
	d.change(func() {
		id = d.newID()
		d.execs[id] = p
	})
	return connect.NewResponse(&v1.ExecResponse{ExecId: id}), nil
}

func (d *fakeContainers) Attach(ctx context.Context, s attachStream) error {
	first, err := s.Receive()
	if err != nil {
		return err
	}
	p, err := d.target(first.GetOpen())
	if err != nil {
		return err
	}
	a := &fakeAttachment{daemon: d.fakeDaemon, stream: s, open: first.GetOpen(), p: p}
	return a.serve(ctx)
}

func (d *fakeDaemon) target(o *v1.AttachOpen) (*fakeProcess, error) {
	if o.ExecId != "" {
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.execs[o.ExecId], nil
	}
	c, err := d.find(o.Container)
	if err != nil {
		return nil, err
	}
	return c.process, nil
}

type fakeAttachment struct {
	daemon  *fakeDaemon
	stream  attachStream
	open    *v1.AttachOpen
	p       *fakeProcess
	sending sync.Mutex
	life    int  // of the daemon
	over    bool // the stream may not be used any more
}

func (a *fakeAttachment) send(m *v1.AttachResponse) error {
	a.sending.Lock()
	defer a.sending.Unlock()
	if a.over {
		return errors.New("the call is over")
	}
	return a.stream.Send(m)
}

func (a *fakeAttachment) serve(ctx context.Context) error {
	offsets := [2]uint64{}
	a.daemon.change(func() {
		for i, from := range []*uint64{a.open.StdoutOffset, a.open.StderrOffset} {
			offsets[i] = uint64(len(a.p.output[i]))
			if from != nil {
				offsets[i] = *from
			}
		}
		a.p.clients++
	})
	defer a.daemon.change(func() { a.p.clients-- })
	taken, life := a.p.offset()
	a.life = life
	err := a.send(&v1.AttachResponse{Message: &v1.AttachResponse_Opened{Opened: &v1.AttachOpened{StdinOffset: taken, Tty: a.p.tty}}})
	if err != nil {
		return err
	}
	defer func() {
		a.sending.Lock()
		a.over = true
		a.sending.Unlock()
	}()
	go a.receive(ctx)
	return a.output(ctx, offsets)
}

// receive takes what the client sends; it ends with the call.
func (a *fakeAttachment) receive(ctx context.Context) {
	for {
		m, err := a.stream.Receive()
		if err != nil {
			return
		}
		switch m := m.Message.(type) {
		case *v1.AttachRequest_Stdin:
			a.p.input(ctx, m.Stdin, a.life)
			taken, _ := a.p.offset()
			_ = a.send(&v1.AttachResponse{Message: &v1.AttachResponse_Input{Input: &v1.InputTaken{Offset: taken}}})
		case *v1.AttachRequest_CloseStdin:
			a.p.closeInput(ctx)
		case *v1.AttachRequest_Resize:
			a.daemon.change(func() { a.p.size = m.Resize })
		}
	}
}

// output sends what there is from the offsets on, until the process has ended.
func (a *fakeAttachment) output(ctx context.Context, offsets [2]uint64) error {
	for {
		var pieces [2][]byte
		var exit *v1.Exit
		err := a.daemon.await(ctx, func() bool {
			for i, wanted := range []bool{a.open.Stdout, a.open.Stderr} {
				if !wanted {
					continue
				}
				pieces[i] = a.p.output[i][min(offsets[i], uint64(len(a.p.output[i]))):]
			}
			exit = a.p.exit
			return exit != nil || len(pieces[0])+len(pieces[1]) > 0
		})
		if err != nil {
			return err
		}
		if len(pieces[0])+len(pieces[1]) == 0 {
			return a.send(&v1.AttachResponse{Message: &v1.AttachResponse_Exit{Exit: exit}})
		}
		for i, data := range pieces {
			if err := a.give(i == 1, offsets[i], data); err != nil {
				return err
			}
			offsets[i] += uint64(len(data))
		}
	}
}

// give sends data in pieces, and breaks the connection where the test wants it.
func (a *fakeAttachment) give(stderr bool, offset uint64, data []byte) error {
	for len(data) > 0 {
		piece := data[:min(len(data), 32<<10)]
		lose := a.daemon.account(&piece)
		chunk := &v1.Chunk{Offset: offset, Data: piece}
		m := &v1.AttachResponse{Message: &v1.AttachResponse_Stdout{Stdout: chunk}}
		if stderr {
			m = &v1.AttachResponse{Message: &v1.AttachResponse_Stderr{Stderr: chunk}}
		}
		if err := a.send(m); err != nil {
			return err
		}
		if lose {
			a.daemon.cut()
			return errors.New("the connection was cut")
		}
		offset, data = offset+uint64(len(piece)), data[len(piece):]
	}
	return nil
}

// account counts what is sent; it shortens the piece that reaches dropAfter and says so.
func (d *fakeDaemon) account(piece *[]byte) (lose bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dropAfter > 0 && d.sent+len(*piece) >= d.dropAfter {
		*piece = (*piece)[:d.dropAfter-d.sent]
		d.dropAfter, lose = 0, true
	}
	d.sent += len(*piece)
	return lose
}
