// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/timestamppb"

	v1 "github.com/micropod/micropod/api/micropod/v1"
	"github.com/micropod/micropod/internal/agent/files"
)

// tree is the file system that all containers of the fake have: a folder beside the socket, served by what serves
// it in a machine.
func (d *fakeDaemon) tree(container string) (*files.Tree, error) {
	if _, err := d.find(container); err != nil {
		return nil, err
	}
	root := filepath.Join(filepath.Dir(d.socket), "root")
	if err := os.MkdirAll(filepath.Join(root, "tmp"), 0o755); err != nil {
		return nil, err
	}
	fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return files.Open(os.NewFile(uintptr(fd), root)), nil
}

func pathRefusal(container, name string, err error) error {
	if errors.Is(err, unix.ENOENT) {
		return refusal(connect.CodeNotFound, "path_not_found", "there is no file "+path.Clean(name)+" in container "+container, "", 0)
	}
	if err != nil {
		return refusal(connect.CodeFailedPrecondition, "path_refused", "path "+name+" of container "+container+": "+err.Error(), "", 0)
	}
	return nil
}

func fakeStat(s files.Stat) *v1.PathStat {
	return &v1.PathStat{Name: s.Name, SizeBytes: s.Size, Mode: s.Mode, LinkTarget: s.Link}
}

func (d *fakeContainers) StatPath(_ context.Context, r *connect.Request[v1.StatPathRequest]) (*connect.Response[v1.StatPathResponse], error) {
	t, err := d.tree(r.Msg.Container)
	if err != nil {
		return nil, err
	}
	defer t.Close()
	s, err := t.Stat(r.Msg.Path, r.Msg.Follow)
	if err != nil {
		return nil, pathRefusal(r.Msg.Container, r.Msg.Path, err)
	}
	return connect.NewResponse(&v1.StatPathResponse{Stat: fakeStat(s)}), nil
}

func (d *fakeContainers) CopyFrom(ctx context.Context, r *connect.Request[v1.CopyFromRequest], s *connect.ServerStream[v1.CopyFromResponse]) error {
	t, err := d.tree(r.Msg.Container)
	if err != nil {
		return err
	}
	defer t.Close()
	out := bufio.NewWriter(fakeData(func(p []byte) error {
		return s.Send(&v1.CopyFromResponse{Message: &v1.CopyFromResponse_Data{Data: p}})
	}))
	err = t.Archive(ctx, out, r.Msg.Path, files.ArchiveOptions{Follow: r.Msg.Follow}, func(st files.Stat) error {
		return s.Send(&v1.CopyFromResponse{Message: &v1.CopyFromResponse_Stat{Stat: fakeStat(st)}})
	})
	if err == nil {
		err = out.Flush()
	}
	return pathRefusal(r.Msg.Container, r.Msg.Path, err)
}

type fakeData func([]byte) error

func (f fakeData) Write(p []byte) (int, error) { return len(p), f(p) }

func (d *fakeContainers) CopyTo(ctx context.Context, s *connect.ClientStream[v1.CopyToRequest]) (*connect.Response[v1.CopyToResponse], error) {
	if !s.Receive() {
		return nil, s.Err()
	}
	open := s.Msg().GetOpen()
	t, err := d.tree(open.GetContainer())
	if err != nil {
		return nil, err
	}
	defer t.Close()
	r, w := io.Pipe()
	go func() {
		for s.Receive() {
			if _, err := w.Write(s.Msg().GetData()); err != nil {
				return
			}
		}
		_ = w.CloseWithError(s.Err())
	}()
	err = t.Extract(ctx, r, open.Path, open.KeepOwner)
	_ = r.Close()
	return connect.NewResponse(&v1.CopyToResponse{}), pathRefusal(open.Container, open.Path, err)
}

func (d *fakeContainers) Diff(_ context.Context, r *connect.Request[v1.DiffRequest], s *connect.ServerStream[v1.DiffResponse]) error {
	if _, err := d.find(r.Msg.Container); err != nil {
		return err
	}
	for _, c := range []*v1.PathChange{
		{Path: "/tmp/new", Kind: v1.ChangeKind_CHANGE_KIND_ADDED}, {Path: "/tmp", Kind: v1.ChangeKind_CHANGE_KIND_CHANGED},
		{Path: "/etc/motd", Kind: v1.ChangeKind_CHANGE_KIND_DELETED},
	} {
		if err := s.Send(&v1.DiffResponse{Changes: []*v1.PathChange{c}}); err != nil {
			return err
		}
	}
	return nil
}

func (d *fakeContainers) Top(_ context.Context, r *connect.Request[v1.TopRequest]) (*connect.Response[v1.TopResponse], error) {
	if _, err := d.find(r.Msg.Container); err != nil {
		return nil, err
	}
	at := timestamppb.New(fakeBoot)
	return connect.NewResponse(&v1.TopResponse{Processes: []*v1.ProcessInfo{
		{Pid: 71, Parent: 1, ContainerPid: 1, User: "root", State: "S", Threads: 1, StartedAt: at, CpuMicros: 65e6, ResidentBytes: 1 << 20, VirtualBytes: 4 << 20, Command: "sh", Args: "sh -c \x1b[31m sleep"},
		{Pid: 75, Parent: 71, ContainerPid: 6, User: "www", Uid: 33, State: "R", Tty: "pts/0", Threads: 3, StartedAt: at, Command: "sleep", Args: "sleep 100"},
	}}), nil
}

// Stats grow by a tenth of a second of CPU for each second of the fake's clock.
func (d *fakeContainers) Stats(ctx context.Context, r *connect.Request[v1.StatsRequest], s *connect.ServerStream[v1.StatsResponse]) error {
	list := r.Msg.Containers
	if len(list) == 0 {
		d.mu.Lock()
		for _, c := range d.containers {
			if r.Msg.All || running(c.State) {
				list = append(list, c.Name)
			}
		}
		d.mu.Unlock()
	}
	for tick := int64(0); tick < 3; tick++ {
		answer := &v1.StatsResponse{}
		for _, name := range list {
			c, err := d.find(name)
			if err != nil {
				return err
			}
			one := &v1.ContainerStats{Id: c.Id, Name: c.Name, At: timestamppb.New(fakeBoot.Add(secondsOf(tick)))}
			if running(d.shown(c).State) {
				one.Running, one.CpuMicros, one.MachineCpuMicros, one.Vcpus, one.Pids = true, 100_000*tick, 250_000*tick, 1, 2
				one.MemoryBytes, one.MemoryLimitBytes, one.MachineMemoryBytes = 16<<20, 256<<20, 512<<20
				one.MachineResidentBytes, one.GuestResidentBytes = 100<<20, 80<<20
				one.ReadBytes, one.WriteBytes = 1_500_000, 2048
			}
			answer.Containers = append(answer.Containers, one)
		}
		if err := s.Send(answer); err != nil || r.Msg.IntervalMillis == 0 {
			return err
		}
	}
	return nil
}

func (d *fakeContainers) Rename(_ context.Context, r *connect.Request[v1.RenameContainerRequest]) (*connect.Response[v1.RenameContainerResponse], error) {
	c, err := d.find(r.Msg.Container)
	if err == nil {
		d.change(func() { c.Name = r.Msg.Name })
	}
	return connect.NewResponse(&v1.RenameContainerResponse{}), err
}

func (d *fakeContainers) Prune(_ context.Context, r *connect.Request[v1.PruneContainersRequest]) (*connect.Response[v1.PruneContainersResponse], error) {
	answer := &v1.PruneContainersResponse{}
	d.mu.Lock()
	all := append([]*fakeContainer(nil), d.containers...)
	d.mu.Unlock()
	for _, c := range all {
		if running(d.shown(c).State) {
			continue
		}
		answer.Deleted = append(answer.Deleted, c.Id)
		answer.FreedBytes += 1_000_000
		if !r.Msg.DryRun {
			d.drop(c)
		}
	}
	return connect.NewResponse(answer), nil
}

var fakeBoot = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func secondsOf(n int64) time.Duration { return time.Duration(n) * time.Second }
