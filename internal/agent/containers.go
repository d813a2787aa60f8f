// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"regexp"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/micropod/micropod/api/agent/channel"
	agentv1 "github.com/micropod/micropod/api/agent/v1"
	"github.com/micropod/micropod/internal/agent/runtime"
)

// maxSlot is the last of the drives that have a name of one letter.
const maxSlot = 'z' - 'a'

// StartContainer starts a container's first process.
func (s service) StartContainer(ctx context.Context, r *agentv1.StartContainerRequest) (*agentv1.StartResponse, error) {
	request, err := s.startRequest(r)
	if err != nil {
		return nil, err
	}
	answer, err := s.start(processKey{container: r.Id}, r.Stdio, func() (*runtime.Process, error) {
		return s.config.Containers.Start(ctx, request)
	})
	s.started.Do(func() { settleLater(s.config.Settle, lateAfterStart) })
	return answer, err
}

// Exec starts a further process in a container.
func (s service) Exec(ctx context.Context, r *agentv1.ExecRequest) (*agentv1.StartResponse, error) {
	request, err := execRequest(r)
	if err != nil {
		return nil, err
	}
	if _, err := s.processes.find(r.ContainerId, ""); err != nil {
		return nil, status.Errorf(codes.FailedPrecondition, "no container %s", r.ContainerId) // NotFound is a command's
	}
	return s.start(processKey{r.ContainerId, r.ExecId}, r.Stdio, func() (*runtime.Process, error) {
		return s.config.Containers.Exec(ctx, r.ContainerId, request)
	})
}

// start runs a process under a name that nobody has.
func (s service) start(key processKey, stdio *agentv1.Stdio, run func() (*runtime.Process, error)) (*agentv1.StartResponse, error) {
	if s.ending.Load() {
		return nil, status.Error(codes.FailedPrecondition, "the machine is shutting down")
	}
	if err := s.processes.reserve(key); err != nil {
		return nil, err
	}
	task, err := run()
	if err != nil {
		s.processes.put(key, nil)
		return nil, statusOf(err)
	}
	s.processes.put(key, newProcess(key, task, stdio.GetDiscard()))
	return &agentv1.StartResponse{Pid: uint32(task.Pid())}, nil
}

// DeleteContainer kills what is left of a container and forgets it, its processes and their output.
func (s service) DeleteContainer(ctx context.Context, r *agentv1.DeleteContainerRequest) (*agentv1.DeleteContainerResponse, error) {
	err := s.config.Containers.Delete(ctx, r.Id)
	if err != nil && !errors.Is(err, runtime.ErrNotFound) {
		return nil, statusOf(err)
	}
	for _, p := range s.processes.removeContainer(r.Id) {
		p.forget()
	}
	if err != nil {
		return nil, status.Errorf(codes.NotFound, "no container %s", r.Id)
	}
	return &agentv1.DeleteContainerResponse{}, nil
}

// DeleteProcess forgets an ended process of Exec.
func (s service) DeleteProcess(_ context.Context, r *agentv1.DeleteProcessRequest) (*agentv1.DeleteProcessResponse, error) {
	if r.ExecId == "" {
		return nil, status.Error(codes.InvalidArgument, "a container's first process goes with its container")
	}
	p, err := s.processes.find(r.ContainerId, r.ExecId)
	if err != nil {
		return nil, err
	}
	if !p.exited() {
		return nil, status.Errorf(codes.FailedPrecondition, "%v is running", p.key)
	}
	s.processes.put(p.key, nil)
	p.forget()
	return &agentv1.DeleteProcessResponse{}, nil
}

func (s service) startRequest(r *agentv1.StartContainerRequest) (runtime.StartRequest, error) {
	if err := checkID("container", r.Id); err != nil {
		return runtime.StartRequest{}, err
	}
	root, err := rootFS(r.Rootfs)
	if err != nil {
		return runtime.StartRequest{}, err
	}
	files, err := extraFiles(r.Files)
	if err != nil {
		return runtime.StartRequest{}, err
	}
	spec := new(specs.Spec)
	if err := decode("spec", r.Spec, spec); err != nil {
		return runtime.StartRequest{}, err
	}
	if spec.Annotations[agentv1.AnnotationDevices] != "" { // some are of modules that can wait
		if err := s.config.Settle(); err != nil {
			return runtime.StartRequest{}, statusOf(err)
		}
	}
	if err := giveDevices(spec); err != nil {
		return runtime.StartRequest{}, status.Error(codes.InvalidArgument, err.Error())
	}
	return runtime.StartRequest{
		ID:       r.Id,
		Spec:     spec,
		RootFS:   root,
		User:     r.User,
		GroupAdd: r.GroupAdd,
		Files:    files,
		Init:     r.Init,
		Stdin:    r.Stdio.GetStdin(),
	}, nil
}

func execRequest(r *agentv1.ExecRequest) (runtime.ExecRequest, error) {
	if err := checkID("exec", r.ExecId); err != nil {
		return runtime.ExecRequest{}, err
	}
	process := new(specs.Process)
	if err := decode("process", r.Process, process); err != nil {
		return runtime.ExecRequest{}, err
	}
	return runtime.ExecRequest{
		ID:       r.ExecId,
		Process:  process,
		User:     r.User,
		GroupAdd: r.GroupAdd,
		Stdin:    r.Stdio.GetStdin(),
	}, nil
}

// idPattern: ids become names of cgroups and files.
var idPattern = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)

func checkID(what, id string) error {
	if len(id) > channel.MaxName || !idPattern.MatchString(id) {
		return status.Errorf(codes.InvalidArgument, "%q is no id of a %s", id, what)
	}
	return nil
}

func rootFS(r *agentv1.RootFS) (runtime.RootFS, error) {
	if r == nil {
		return runtime.RootFS{}, status.Error(codes.InvalidArgument, "a container needs a root file system")
	}
	if r.ImageSlot > maxSlot || r.ScratchSlot > maxSlot || r.ImageSlot == r.ScratchSlot {
		return runtime.RootFS{}, status.Errorf(codes.InvalidArgument, "no root file system can be of drives %d and %d", r.ImageSlot, r.ScratchSlot)
	}
	return runtime.RootFS{ImageDevice: drive(r.ImageSlot), ScratchDevice: drive(r.ScratchSlot)}, nil
}

// drive is the device of a drive slot: virtio-blk names its disks in the engine's order.
func drive(slot uint32) string { return fmt.Sprintf("/dev/vd%c", 'a'+rune(slot)) }

func extraFiles(list []*agentv1.File) ([]runtime.File, error) {
	if len(list) > agentv1.MaxFiles {
		return nil, status.Errorf(codes.InvalidArgument, "%d files, more than %d", len(list), agentv1.MaxFiles)
	}
	files := make([]runtime.File, 0, len(list))
	for _, f := range list {
		if len(f.Content) > agentv1.MaxFile {
			return nil, status.Errorf(codes.InvalidArgument, "file %q has more than %d bytes", f.Path, agentv1.MaxFile)
		}
		files = append(files, runtime.File{Path: f.Path, Mode: f.Mode & uint32(fs.ModePerm), Content: f.Content})
	}
	return files, nil
}

func decode(what string, data []byte, into any) error {
	if len(data) > agentv1.MaxSpec {
		return status.Errorf(codes.InvalidArgument, "%s has more than %d bytes", what, agentv1.MaxSpec)
	}
	if err := json.Unmarshal(data, into); err != nil {
		return status.Errorf(codes.InvalidArgument, "reading the %s: %v", what, err)
	}
	return nil
}
