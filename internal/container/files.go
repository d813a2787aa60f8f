// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	agentv1 "github.com/micropod/micropod/api/agent/v1"
	"github.com/micropod/micropod/internal/guest"
	"github.com/micropod/micropod/internal/machine"
)

// FilesStream is an act on a container's file system, see guest.Files.
type FilesStream interface {
	Send(*agentv1.FilesMessage) error
	Next() (*agentv1.FilesMessage, error)
	Close() error
}

// PathStat tells of a path in a container. It comes from the guest.
type PathStat struct {
	Name       string // last part of the path asked for
	Size       int64
	Mode       uint32 // st_mode
	Modified   time.Time
	LinkTarget string
}

// PathError: a path in a container cannot be used as was asked for.
type PathError struct {
	Container string // its name
	Path      string
	Missing   bool // nothing is there
	Reason    string
}

func (e *PathError) Error() string {
	if e.Missing {
		return fmt.Sprintf("there is no file %s in container %s", e.Path, e.Container)
	}
	return fmt.Sprintf("path %s of container %s: %s", e.Path, e.Container, e.Reason)
}

// CopyFromOptions say what is read.
type CopyFromOptions struct {
	Path   string // taken from the container's root
	Follow bool   // of a symbolic link at its end, read what it leads to
	Export bool   // leave out what is mounted over the container's own file system
}

// StatPath tells of a path. The machine of a container that does not run is booted for it.
// Errors: *NotFoundError, *StateError, *PathError.
func (s *Service) StatPath(ctx context.Context, ref, path string, follow bool) (stat PathStat, err error) {
	request := &agentv1.FilesRequest{Act: agentv1.FilesRequest_ACT_STAT, Path: path, Follow: follow}
	err = s.withFiles(ctx, ref, request, func(f FilesStream) error {
		stat, err = readStat(f)
		if err != nil {
			return err
		}
		return readEnd(f)
	})
	return stat, err
}

// CopyFrom writes a path as a tar archive to w, after tell was told what it is. The archive's bytes are
// the guest's: whoever unpacks them must not trust them. Errors as StatPath's, and those of tell and w.
func (s *Service) CopyFrom(ctx context.Context, ref string, o CopyFromOptions, tell func(PathStat) error, w io.Writer) error {
	request := &agentv1.FilesRequest{Act: agentv1.FilesRequest_ACT_ARCHIVE, Path: o.Path, Follow: o.Follow, OwnOnly: o.Export}
	return s.withFiles(ctx, ref, request, func(f FilesStream) error {
		stat, err := readStat(f)
		if err != nil {
			return err
		}
		if err := tell(stat); err != nil {
			return err
		}
		_, err = io.Copy(w, &agentv1.FilesReader{Next: f.Next, Failed: guest.Failure})
		return err
	})
}

// CopyTo unpacks the tar archive that r reads into a folder of a container. Errors as StatPath's, and those of r. What
// was unpacked before an error stays.
func (s *Service) CopyTo(ctx context.Context, ref, folder string, keepOwner bool, r io.Reader) error {
	request := &agentv1.FilesRequest{Act: agentv1.FilesRequest_ACT_EXTRACT, Path: folder, KeepOwner: keepOwner}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	return s.withFiles(ctx, ref, request, func(f FilesStream) error {
		ended := make(chan error, 1)
		go func() {
			ended <- readEnd(f)
			cancel() // a guest that takes no more must not hold the sender
		}()
		sent := sendArchive(f, r)
		if sent != nil && ctx.Err() == nil {
			_ = f.Send(&agentv1.FilesMessage{Message: &agentv1.FilesMessage_End{End: &agentv1.FilesEnd{
				Code: uint32(codes.Canceled), Message: "the sender gave up",
			}}})
		}
		err := <-ended
		var guests *agentFailure
		if sent != nil && !errors.As(sent, &guests) {
			return sent // what was read went wrong
		}
		return err
	})
}

// agentFailure is an error of the stream to the agent, rather than of what is sent.
type agentFailure struct{ error }

func (e *agentFailure) Unwrap() error { return e.error }

func sendArchive(f FilesStream, r io.Reader) error {
	out := agentv1.FilesWriter{Send: func(m *agentv1.FilesMessage) error {
		if err := f.Send(m); err != nil {
			return &agentFailure{err}
		}
		return nil
	}}
	if _, err := io.CopyBuffer(struct{ io.Writer }{out}, struct{ io.Reader }{r}, make([]byte, agentv1.MaxFilesData)); err != nil {
		return err
	}
	if err := f.Send(&agentv1.FilesMessage{Message: &agentv1.FilesMessage_End{End: &agentv1.FilesEnd{}}}); err != nil {
		return &agentFailure{err}
	}
	return nil
}

// ChangeKind says what happened to a path of an image in a container.
type ChangeKind int

// The kinds, as the agent numbers them.
const (
	PathChanged ChangeKind = 1 + iota
	PathAdded
	PathDeleted
)

// PathChange is a path that differs from the image.
type PathChange struct {
	Path string
	Kind ChangeKind
}

// Changes tells emit, some at a time, what a container changed in its image's file system. Errors as StatPath's.
func (s *Service) Changes(ctx context.Context, ref string, emit func([]PathChange) error) error {
	return s.withFiles(ctx, ref, &agentv1.FilesRequest{Act: agentv1.FilesRequest_ACT_CHANGES}, func(f FilesStream) error {
		for {
			m, err := f.Next()
			if err != nil {
				return err
			}
			if m.GetEnd() != nil {
				return nil
			}
			var list []PathChange
			for _, c := range m.GetChanges().GetChanges() {
				list = append(list, PathChange{c.Path, ChangeKind(c.Kind)})
			}
			if err := emit(list); err != nil {
				return err
			}
		}
	})
}

func readStat(f FilesStream) (PathStat, error) {
	m, err := f.Next()
	if err != nil {
		return PathStat{}, err
	}
	st := m.GetStat()
	if st == nil {
		return PathStat{}, fmt.Errorf("the agent answered with %T", m.Message)
	}
	return PathStat{st.Name, max(0, st.Size), st.Mode, time.Unix(0, st.ModifiedUnixNanos).UTC(), st.LinkTarget}, nil
}

func readEnd(f FilesStream) error {
	m, err := f.Next()
	if err == nil && m.GetEnd() == nil {
		err = fmt.Errorf("the agent answered with %T", m.Message)
	}
	return err
}

// withFiles carries out an act with a running machine: the container's, or one booted for it alone.
func (s *Service) withFiles(ctx context.Context, ref string, request *agentv1.FilesRequest, do func(FilesStream) error) error {
	e, err := s.find(ref)
	if err != nil {
		return err
	}
	done, err := e.use(ctx)
	if err != nil {
		return err
	}
	defer done()
	request.ContainerId = e.guestID()
	if state := e.info().State; state == Running || state == Stopping {
		if request.Act == agentv1.FilesRequest_ACT_CHANGES {
			request.Rootfs = rootFS()
		}
		return e.act(ctx, request, do)
	}
	return e.atRest(ctx, func(ctx context.Context) error {
		if request.Act == agentv1.FilesRequest_ACT_EXTRACT && e.record().Config.ReadOnly {
			return &PathError{Container: e.name(), Path: request.Path, Reason: "the container's root file system is read-only"}
		}
		request.Rootfs = rootFS()
		return e.act(ctx, request, do)
	})
}

func rootFS() *agentv1.RootFS {
	return &agentv1.RootFS{ImageSlot: machine.ImageSlot, ScratchSlot: machine.ScratchSlot}
}

// act carries out an act in the machine, which runs.
func (e *entry) act(ctx context.Context, request *agentv1.FilesRequest, do func(FilesStream) error) error {
	session, err := e.s.Machines.Session(ctx, e.record().MachineID)
	if err != nil {
		return err
	}
	f, err := session.Files(ctx, request)
	if err != nil {
		return err
	}
	defer f.Close()
	return e.pathError(request.Path, do(f))
}

// pathError makes of the agent's statuses what the API tells apart.
func (e *entry) pathError(name string, err error) error {
	st, ok := status.FromError(err)
	if err == nil || !ok {
		return err
	}
	failed := &PathError{Container: e.name(), Path: path.Clean("/" + name), Reason: st.Message()}
	switch st.Code() {
	case codes.NotFound:
		failed.Missing = true
		return failed
	case codes.InvalidArgument, codes.FailedPrecondition, codes.PermissionDenied, codes.ResourceExhausted:
		return failed
	}
	return fmt.Errorf("files of container %s: %s", e.name(), st.Message())
}

// atRest boots the machine of a container that does not run, for do alone. The container's state stays
// as it is; a daemon that dies meanwhile finds the machine and stops it.
func (e *entry) atRest(ctx context.Context, do func(context.Context) error) error {
	ctx, end, err := e.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	if r := e.current(); r != nil && r.done() { // its machine may still be stopping
		if err := await(ctx, r.finished); err != nil {
			return fmt.Errorf("waiting for the end of the machine of container %q: %w", e.name(), err)
		}
	}
	rec := e.record()
	if rec.State != Created && rec.State != Exited && rec.State != Error {
		return &StateError{ID: e.id, Name: e.name(), Action: "use the files of", State: rec.State}
	}
	if err := e.s.Machines.Start(ctx, rec.MachineID); err != nil {
		return fmt.Errorf("booting the machine of container %q for its files: %w", e.name(), err)
	}
	defer func() {
		// Not by force: the guest writes its disk out. Close of the service leaves it to the next daemon.
		err := e.s.Machines.Stop(e.s.life, rec.MachineID, machineStopLimit, false)
		if err != nil && e.s.life.Err() == nil && !e.isRemoved() {
			e.log.Error("stopping the machine that was booted for files", "error", err)
		}
	}()
	return do(ctx)
}

func (e *entry) isRemoved() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.removed
}
