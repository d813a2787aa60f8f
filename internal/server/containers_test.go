// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"

	v1 "github.com/micropod/micropod/api/micropod/v1"
	"github.com/micropod/micropod/api/micropod/v1/micropodv1connect"
	"github.com/micropod/micropod/internal/container"
	"github.com/micropod/micropod/internal/container/containertest"
	"github.com/micropod/micropod/internal/image"
	"github.com/micropod/micropod/internal/store"
)

// boxes is the Containers service over machines in memory, behind a real connection.
type boxes struct {
	micropodv1connect.ContainersClient
	t        *testing.T
	machines *containertest.Machines
	images   *containertest.Images
	service  *container.Service
}

var programs = map[string]containertest.Program{
	"echo": func(p *containertest.Process) containertest.Exit {
		fmt.Fprintln(p.Stdout, strings.Join(p.Spec.Args[1:], " "))
		fmt.Fprintln(p.Stderr, "complaint")
		return containertest.Exit{Code: 3}
	},
	"cat": func(p *containertest.Process) containertest.Exit {
		_, _ = io.Copy(p.Stdout, p.Stdin)
		return containertest.Exit{}
	},
	"sleep": func(p *containertest.Process) containertest.Exit {
		select {
		case s := <-p.Signals:
			return containertest.Exit{Code: 128 + s, Signal: s}
		case <-p.Killed:
			return containertest.Exit{}
		}
	},
}

func newBoxes(t *testing.T) *boxes {
	t.Helper()
	dir := t.TempDir()
	b := &boxes{t: t, machines: containertest.NewMachines(programs)}
	b.images = containertest.NewImages(map[string]*image.Image{
		"box": {Config: imagespec.Image{Config: imagespec.ImageConfig{Cmd: []string{"echo", "image"}}}},
	})
	db, err := store.Open(filepath.Join(dir, "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	b.service, err = container.New(container.ServiceConfig{Machines: b.machines, Images: b.images, DB: db, Dir: filepath.Join(dir, "containers")})
	if err != nil {
		t.Fatal(err)
	}
	s := New(Config{ContainersRPC: NewContainers(b.service, b.machines)})
	l, err := net.Listen("unix", filepath.Join(dir, "sock"))
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	var p http.Protocols
	p.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: &p, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", l.Addr().String())
	}}
	b.ContainersClient = micropodv1connect.NewContainersClient(&http.Client{Transport: transport}, "http://x")
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		for _, i := range b.service.List(container.Filter{All: true}) {
			_, _ = b.service.Remove(ctx, i.ID, true)
		}
		b.service.Close()
		transport.CloseIdleConnections()
		if err := errors.Join(s.Shutdown(ctx), <-served, db.Close()); err != nil {
			t.Errorf("shutting down: %v", err)
		}
	})
	return b
}

func (b *boxes) soon() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	b.t.Cleanup(cancel)
	return ctx
}

func (b *boxes) create(c *v1.ContainerConfig) (*v1.Container, []string) {
	b.t.Helper()
	stream, err := b.Create(b.soon(), connect.NewRequest(&v1.CreateContainerRequest{Config: c}))
	if err != nil {
		b.t.Fatal(err)
	}
	defer stream.Close()
	var last *v1.CreateContainerResponse
	for stream.Receive() {
		last = stream.Msg()
	}
	if err := stream.Err(); err != nil || last.GetContainer() == nil {
		b.t.Fatalf("creating: %v", err)
	}
	return last.GetContainer(), last.Warnings
}

func (b *boxes) start(c *v1.Container) {
	b.t.Helper()
	if _, err := b.Start(b.soon(), connect.NewRequest(&v1.StartContainerRequest{Container: c.Id})); err != nil {
		b.t.Fatal(err)
	}
}

func TestContainerLife(t *testing.T) {
	t.Parallel()
	b := newBoxes(t)
	b.images.Remote["far"] = &image.Image{RootFS: "/far", Config: imagespec.Image{Config: imagespec.ImageConfig{Cmd: []string{"sleep"}}}}
	c, _ := b.create(&v1.ContainerConfig{Image: "far", Name: "c", Labels: map[string]string{"l": "1"}})
	if c.State != v1.ContainerState_CONTAINER_STATE_CREATED || c.Name != "c" || c.Image != "far" || c.Config.Pull != "missing" {
		t.Errorf("made %v", c)
	}
	b.start(c)
	got, err := b.Get(b.soon(), connect.NewRequest(&v1.GetContainerRequest{Container: "c"}))
	if err != nil || got.Msg.Container.State != v1.ContainerState_CONTAINER_STATE_RUNNING || got.Msg.Container.Vm.GetState() != v1.VMState_VM_STATE_RUNNING {
		t.Errorf("running, it is %v, %v", got, err)
	}
	list, err := b.List(b.soon(), connect.NewRequest(&v1.ListContainersRequest{Labels: map[string]string{"l": "1"}}))
	if err != nil || len(list.Msg.Containers) != 1 {
		t.Errorf("listed %v, %v", list, err)
	}
	exec, err := b.Exec(b.soon(), connect.NewRequest(&v1.ExecRequest{Container: "c", Command: []string{"echo", "x"}}))
	if err != nil {
		t.Fatal(err)
	}
	exit, err := b.Wait(b.soon(), connect.NewRequest(&v1.WaitContainerRequest{Container: "c", ExecId: exec.Msg.ExecId}))
	if err != nil || exit.Msg.Exit.Code != 3 {
		t.Errorf("the further process ended with %v, %v", exit, err)
	}
	if _, err := b.ResizeTTY(b.soon(), connect.NewRequest(&v1.ResizeTTYRequest{Container: "c", Window: &v1.WindowSize{Rows: 1, Cols: 2}})); err != nil {
		t.Error(err)
	}
	if r, err := b.Pause(b.soon(), connect.NewRequest(&v1.PauseContainerRequest{Container: "c"})); err != nil || r.Msg.Container.State != v1.ContainerState_CONTAINER_STATE_PAUSED {
		t.Errorf("paused: %v, %v", r, err)
	}
	if r, err := b.Unpause(b.soon(), connect.NewRequest(&v1.UnpauseContainerRequest{Container: "c"})); err != nil || r.Msg.Container.State != v1.ContainerState_CONTAINER_STATE_RUNNING {
		t.Errorf("let run on: %v, %v", r, err)
	}
	two := uint32(2)
	if r, err := b.Restart(b.soon(), connect.NewRequest(&v1.RestartContainerRequest{Container: "c", TimeoutSeconds: &two})); err != nil || r.Msg.Container.State != v1.ContainerState_CONTAINER_STATE_RUNNING {
		t.Errorf("restarted: %v, %v", r, err)
	}
	if _, err := b.Kill(b.soon(), connect.NewRequest(&v1.KillContainerRequest{Container: "c", Signal: "INT"})); err != nil {
		t.Error(err)
	}
	exit, err = b.Wait(b.soon(), connect.NewRequest(&v1.WaitContainerRequest{Container: "c"}))
	if err != nil || exit.Msg.Exit.Code != 130 || exit.Msg.Exit.At == nil {
		t.Errorf("killed, it ended with %v, %v", exit, err)
	}
	if s, err := b.Stop(b.soon(), connect.NewRequest(&v1.StopContainerRequest{Container: "c"})); err != nil || s.Msg.Container.State != v1.ContainerState_CONTAINER_STATE_EXITED {
		t.Errorf("stopped: %v, %v", s, err)
	}
	if r, err := b.Remove(b.soon(), connect.NewRequest(&v1.RemoveContainerRequest{Container: "c"})); err != nil || r.Msg.Id != c.Id {
		t.Errorf("removed: %v, %v", r, err)
	}
}

func TestContainerErrorsAreTyped(t *testing.T) {
	t.Parallel()
	b := newBoxes(t)
	create := func(c *v1.ContainerConfig) error {
		s, err := b.Create(b.soon(), connect.NewRequest(&v1.CreateContainerRequest{Config: c}))
		if err != nil {
			return err
		}
		defer s.Close()
		for s.Receive() {
		}
		return s.Err()
	}
	wantError(t, create(nil), connect.CodeInvalidArgument, "invalid_request")
	wantError(t, create(&v1.ContainerConfig{Image: "box", CapAdd: []string{"FLY"}}), connect.CodeInvalidArgument, "invalid_request")
	wantError(t, create(&v1.ContainerConfig{Image: "box", Vm: &v1.VMConfig{VcpuCount: 1 << 20}}), connect.CodeInvalidArgument, "invalid_request")
	wantError(t, create(&v1.ContainerConfig{Image: "none"}), connect.CodeNotFound, "image_not_found")
	b.create(&v1.ContainerConfig{Image: "box", Name: "taken"})
	wantError(t, create(&v1.ContainerConfig{Image: "box", Name: "taken"}), connect.CodeAlreadyExists, "name_in_use")
	c, _ := b.create(&v1.ContainerConfig{Image: "box", Command: []string{"nonesuch"}})
	_, err := b.Start(b.soon(), connect.NewRequest(&v1.StartContainerRequest{Container: c.Id}))
	if d := wantError(t, err, connect.CodeFailedPrecondition, "command_not_found"); d.GetExitCode() != 127 {
		t.Errorf("the exit code told is %d, want 127", d.GetExitCode())
	}
	long := uint32(1 << 30)
	for name, err := range map[string]error{
		"start": func() error { _, err := b.Start(b.soon(), connect.NewRequest(&v1.StartContainerRequest{})); return err }(),
		"stop":  func() error { _, err := b.Stop(b.soon(), connect.NewRequest(&v1.StopContainerRequest{})); return err }(),
		"timeout": func() error {
			_, err := b.Stop(b.soon(), connect.NewRequest(&v1.StopContainerRequest{Container: "x", TimeoutSeconds: &long}))
			return err
		}(),
		"restart": func() error {
			_, err := b.Restart(b.soon(), connect.NewRequest(&v1.RestartContainerRequest{}))
			return err
		}(),
		"again": func() error {
			_, err := b.Restart(b.soon(), connect.NewRequest(&v1.RestartContainerRequest{Container: "x", TimeoutSeconds: &long}))
			return err
		}(),
		"kill": func() error { _, err := b.Kill(b.soon(), connect.NewRequest(&v1.KillContainerRequest{})); return err }(),
		"remove": func() error {
			_, err := b.Remove(b.soon(), connect.NewRequest(&v1.RemoveContainerRequest{}))
			return err
		}(),
		"exec":   func() error { _, err := b.Exec(b.soon(), connect.NewRequest(&v1.ExecRequest{})); return err }(),
		"wait":   func() error { _, err := b.Wait(b.soon(), connect.NewRequest(&v1.WaitContainerRequest{})); return err }(),
		"get":    func() error { _, err := b.Get(b.soon(), connect.NewRequest(&v1.GetContainerRequest{})); return err }(),
		"resize": func() error { _, err := b.ResizeTTY(b.soon(), connect.NewRequest(&v1.ResizeTTYRequest{})); return err }(),
		"name": func() error {
			_, err := b.Get(b.soon(), connect.NewRequest(&v1.GetContainerRequest{Container: strings.Repeat("x", 300)}))
			return err
		}(),
	} {
		if connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("%s of nothing gave %v", name, err)
		}
	}
	_, err = b.Get(b.soon(), connect.NewRequest(&v1.GetContainerRequest{Container: "nobody"}))
	wantError(t, err, connect.CodeNotFound, "container_not_found")
}

func TestLogsOverTheWire(t *testing.T) {
	t.Parallel()
	b := newBoxes(t)
	c, _ := b.create(&v1.ContainerConfig{Image: "box"})
	b.start(c)
	if _, err := b.Wait(b.soon(), connect.NewRequest(&v1.WaitContainerRequest{Container: c.Id})); err != nil {
		t.Fatal(err)
	}
	for tail, want := range map[int64]string{-1: "image\ncomplaint\n", 0: ""} {
		s, err := b.Logs(b.soon(), connect.NewRequest(&v1.LogsRequest{Container: c.Id, Tail: tail, Stdout: true, Stderr: true}))
		if err != nil {
			t.Fatal(err)
		}
		got := map[bool]string{}
		for s.Receive() {
			got[s.Msg().Stderr] += string(s.Msg().Data)
			if s.Msg().Time == nil {
				t.Error("an entry has no time")
			}
		}
		if err := errors.Join(s.Err(), s.Close()); err != nil || got[false]+got[true] != want {
			t.Errorf("tail %d gave %v, %v; want %q", tail, got, err, want)
		}
	}
	s, err := b.Logs(b.soon(), connect.NewRequest(&v1.LogsRequest{}))
	if err == nil {
		s.Receive()
		err = s.Err()
		_ = s.Close()
	}
	wantError(t, err, connect.CodeInvalidArgument, "invalid_request")
}

// joined is an attached client's end.
type joined = connect.BidiStreamForClient[v1.AttachRequest, v1.AttachResponse]

func (b *boxes) attach(open *v1.AttachOpen) *joined {
	b.t.Helper()
	s := b.Attach(b.soon())
	if err := s.Send(&v1.AttachRequest{Message: &v1.AttachRequest_Open{Open: open}}); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _, _ = s.CloseRequest(), s.CloseResponse() })
	return s
}

// TestAttachCarriesInputAndOutput: more than all windows, both ways at once, whole and in order; a
// client that writes all its input before it acknowledges anything stops nobody for ever.
func TestAttachCarriesInputAndOutput(t *testing.T) {
	t.Parallel()
	b := newBoxes(t)
	c, _ := b.create(&v1.ContainerConfig{Image: "box", Command: []string{"cat"}, Stdin: true, StdinOnce: true})
	s := b.attach(&v1.AttachOpen{Container: c.Id, Stdin: true, Stdout: true, Stderr: true, StdoutOffset: new(uint64), StderrOffset: new(uint64)})
	first, err := s.Receive()
	if err != nil || first.GetOpened() == nil || first.GetOpened().StdinOffset != 0 {
		t.Fatalf("the first message is %v, %v", first, err)
	}
	b.start(c)
	total := 16 << 20
	if testing.Short() {
		total = 4 << 20
	}
	sent, got := sha256.New(), sha256.New()
	taken := make(chan uint64, 1<<10)
	var sending = make(chan error, 1)
	acks := make(chan uint64, 1<<10)
	go func() { // one goroutine sends: input within the window, acknowledgements in between
		var at, allowed uint64 = 0, inputAhead
		for int(at) < total {
			select {
			case offset := <-acks:
				if err := s.Send(&v1.AttachRequest{Message: &v1.AttachRequest_Ack{Ack: &v1.AttachAck{StdoutOffset: offset}}}); err != nil {
					sending <- err
					return
				}
				continue
			case offset := <-taken:
				allowed = offset + inputAhead
				continue
			default:
			}
			if at+32<<10 > allowed {
				select {
				case offset := <-taken:
					allowed = offset + inputAhead
				case offset := <-acks:
					if err := s.Send(&v1.AttachRequest{Message: &v1.AttachRequest_Ack{Ack: &v1.AttachAck{StdoutOffset: offset}}}); err != nil {
						sending <- err
						return
					}
				}
				continue
			}
			chunk := make([]byte, min(32<<10, total-int(at)))
			for n := range chunk {
				chunk[n] = byte(int(at)/len(chunk) + n*3)
			}
			sent.Write(chunk)
			at += uint64(len(chunk))
			if err := s.Send(&v1.AttachRequest{Message: &v1.AttachRequest_Stdin{Stdin: chunk}}); err != nil {
				sending <- err
				return
			}
		}
		err := s.Send(&v1.AttachRequest{Message: &v1.AttachRequest_CloseStdin{CloseStdin: true}})
		sending <- err
		for offset := range acks {
			_ = s.Send(&v1.AttachRequest{Message: &v1.AttachRequest_Ack{Ack: &v1.AttachAck{StdoutOffset: offset}}})
		}
	}()
	defer close(acks)
	next := uint64(0)
	for {
		m, err := s.Receive()
		if err != nil {
			t.Fatalf("after %d bytes: %v", next, err)
		}
		if m.GetExit() != nil {
			if m.GetExit().Code != 0 {
				t.Errorf("it ended with %v", m.GetExit())
			}
			break
		}
		if m.GetInput() != nil {
			taken <- m.GetInput().Offset
		}
		if chunk := m.GetStdout(); chunk != nil {
			if chunk.Offset != next {
				t.Fatalf("a piece at %d, want %d", chunk.Offset, next)
			}
			next += uint64(len(chunk.Data))
			got.Write(chunk.Data)
			acks <- next
		}
	}
	if err := <-sending; err != nil || next != uint64(total) || string(sent.Sum(nil)) != string(got.Sum(nil)) {
		t.Errorf("%d of %d bytes came back, sending ended with %v", next, total, err)
	}
}

func TestAttachIsRefused(t *testing.T) {
	t.Parallel()
	b := newBoxes(t)
	s := b.Attach(b.soon())
	_ = s.Send(&v1.AttachRequest{Message: &v1.AttachRequest_CloseStdin{CloseStdin: true}})
	_, err := s.Receive()
	wantError(t, err, connect.CodeInvalidArgument, "invalid_request")
	_, err = b.attach(&v1.AttachOpen{}).Receive()
	wantError(t, err, connect.CodeInvalidArgument, "invalid_request")
	_, err = b.attach(&v1.AttachOpen{Container: "nobody"}).Receive()
	wantError(t, err, connect.CodeNotFound, "container_not_found")
	c, _ := b.create(&v1.ContainerConfig{Image: "box", Command: []string{"sleep"}, Tty: true, Stdin: true})
	b.start(c)
	twice := b.attach(&v1.AttachOpen{Container: c.Id, Stdin: true, Stdout: true})
	if m, err := twice.Receive(); err != nil || !m.GetOpened().Tty {
		t.Fatalf("opened: %v, %v", m, err)
	}
	for range 3 {
		_ = twice.Send(&v1.AttachRequest{Message: &v1.AttachRequest_Resize{Resize: &v1.WindowSize{Rows: 5, Cols: 6}}})
	}
	if got := <-b.machines.Guest(c.VmId).Process(c.Id, "").Sizes; got != [2]uint32{5, 6} {
		t.Errorf("the size %v arrived", got)
	}
	_ = twice.Send(&v1.AttachRequest{Message: &v1.AttachRequest_Open{Open: &v1.AttachOpen{Container: c.Id}}})
	for err == nil || connect.CodeOf(err) == connect.CodeNotFound {
		_, err = twice.Receive()
	}
	wantError(t, err, connect.CodeInvalidArgument, "invalid_request")
}

// TestInputQueue: a client that does not keep to its window is slowed down, and costs no more than that.
func TestInputQueue(t *testing.T) {
	t.Parallel()
	q := newInputQueue()
	ctx, cancel := context.WithCancel(t.Context())
	piece := make([]byte, 100<<10)
	for range 3 {
		if err := q.put(ctx, piece); err != nil {
			t.Fatal(err)
		}
	}
	full := make(chan error, 1)
	go func() { full <- q.put(ctx, piece) }()
	cancel()
	if err := <-full; !errors.Is(err, context.Canceled) {
		t.Errorf("put into a full queue gave %v", err)
	}
	q.close()
	if err := q.put(t.Context(), piece); err != nil {
		t.Errorf("input after its end gave %v", err)
	}
	for range 3 {
		if p, err := q.next(t.Context()); len(p) != len(piece) || err != nil {
			t.Errorf("got %d bytes, %v", len(p), err)
		}
	}
	if _, err := q.next(t.Context()); !errors.Is(err, io.EOF) {
		t.Errorf("after the last piece: %v", err)
	}
	q = newInputQueue()
	_ = q.put(t.Context(), piece)
	q.discard()
	if err := q.put(t.Context(), piece); err != nil || q.bytes != 0 {
		t.Errorf("a queue that nobody reads holds %d bytes, %v", q.bytes, err)
	}
	if _, err := q.next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting in an ended context gave %v", err)
	}
}
