// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"archive/tar"
	"bytes"
	"io"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	agentv1 "github.com/micropod/micropod/api/agent/v1"
	"github.com/micropod/micropod/internal/guest"
)

// act carries one act out and returns what came, up to the end or failure.
func act(t *testing.T, s *guest.Session, r *agentv1.FilesRequest, data []byte) (stat *agentv1.PathStat, out []byte, changes []string, err error) {
	t.Helper()
	f, err := s.Files(soon(t), r)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if r.GetAct() == agentv1.FilesRequest_ACT_EXTRACT {
		_, _ = agentv1.FilesWriter{Send: f.Send}.Write(data)
		_ = f.Send(&agentv1.FilesMessage{Message: &agentv1.FilesMessage_End{End: &agentv1.FilesEnd{}}})
	}
	for {
		m, err := f.Next()
		if err != nil || m.GetEnd() != nil {
			return stat, out, changes, err
		}
		if st := m.GetStat(); st != nil {
			stat = st
		}
		out = append(out, m.GetData()...)
		for _, c := range m.GetChanges().GetChanges() {
			changes = append(changes, c.Path)
		}
	}
}

func TestFilesOfARunningContainer(t *testing.T) {
	t.Parallel()
	_, s, _ := realGuest(t)
	start(t, s, "c1", nil, "sh", "-c", "echo in the mount > /tmp/f; echo ready; sleep 100; true")
	out, err := s.Output(soon(t), "c1", "", false, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := io.ReadFull(out, make([]byte, len("ready"))); err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	content := strings.Repeat("0123456789", 100_000)
	_ = w.WriteHeader(&tar.Header{Name: "big", Mode: 0o644, Size: int64(len(content))})
	_, _ = io.WriteString(w, content)
	_ = w.Close()
	if _, _, _, err := act(t, s, &agentv1.FilesRequest{Act: agentv1.FilesRequest_ACT_EXTRACT, ContainerId: "c1", Path: "/tmp"}, archive.Bytes()); err != nil {
		t.Fatalf("extracting: %v", err)
	}
	stat, back, _, err := act(t, s, &agentv1.FilesRequest{Act: agentv1.FilesRequest_ACT_ARCHIVE, ContainerId: "c1", Path: "/tmp/."}, nil)
	if err != nil || stat.GetName() != "." || stat.Mode&0o170000 != 0o040000 {
		t.Fatalf("archiving: %v, %v", stat, err)
	}
	files := map[string]string{}
	for r := tar.NewReader(bytes.NewReader(back)); ; {
		h, err := r.Next()
		if err != nil {
			break
		}
		b, _ := io.ReadAll(r)
		files[h.Name] = string(b)
	}
	if files["./big"] != content || files["./f"] != "in the mount\n" {
		t.Errorf("what came back is not what the container has: %d bytes of big, f %q", len(files["./big"]), files["./f"])
	}
	var list *agentv1.ProcessesResponse
	var listErr error
	isSleep := func(p *agentv1.Process) bool { return p.Command == "sleep" }
	for ctx := soon(t); ctx.Err() == nil && listErr == nil && !slices.ContainsFunc(list.GetProcesses(), isSleep); { // which begins after "ready"
		list, listErr = s.Agent().Processes(ctx, &agentv1.ProcessesRequest{ContainerId: "c1"})
	}
	if listErr != nil || len(list.Processes) != 2 {
		t.Fatalf("Processes = %v, %v, want sh and sleep", list, listErr)
	}
	slices.SortFunc(list.Processes, func(a, b *agentv1.Process) int { return int(a.ContainerPid) - int(b.ContainerPid) })
	if p := list.Processes[1]; p.Command != "sleep" || p.Args != "sleep 100" || p.ContainerPid < 2 || p.Parent != list.Processes[0].Pid || p.State == "" {
		t.Errorf("the second process is %v", p)
	}
	if list.Processes[0].ContainerPid != 1 {
		t.Errorf("the first process is %v, want number 1 of its container", list.Processes[0])
	}
}

func TestFilesAtRestAndRefusals(t *testing.T) {
	t.Parallel()
	_, s, _ := realGuest(t)
	root := &agentv1.RootFS{ScratchSlot: 1}
	stat, _, _, err := act(t, s, &agentv1.FilesRequest{Act: agentv1.FilesRequest_ACT_STAT, ContainerId: "none", Rootfs: root, Path: "/bin/busybox"}, nil)
	if err != nil || stat.GetSize() == 0 {
		t.Errorf("stat of a container that does not run: %v, %v", stat, err)
	}
	if _, _, changes, err := act(t, s, &agentv1.FilesRequest{Act: agentv1.FilesRequest_ACT_CHANGES, ContainerId: "none", Rootfs: root}, nil); err != nil || len(changes) == 0 {
		t.Errorf("changes: %q, %v; all files are in both layers, and so changed", changes, err)
	}
	for name, c := range map[string]struct {
		request *agentv1.FilesRequest
		code    codes.Code
	}{
		"no container":   {&agentv1.FilesRequest{Act: agentv1.FilesRequest_ACT_STAT, ContainerId: "none", Path: "/"}, codes.FailedPrecondition},
		"no id":          {&agentv1.FilesRequest{Act: agentv1.FilesRequest_ACT_STAT, Path: "/"}, codes.InvalidArgument},
		"no such file":   {&agentv1.FilesRequest{Act: agentv1.FilesRequest_ACT_STAT, ContainerId: "c", Rootfs: root, Path: "/none"}, codes.NotFound},
		"not a folder":   {&agentv1.FilesRequest{Act: agentv1.FilesRequest_ACT_EXTRACT, ContainerId: "c", Rootfs: root, Path: "/bin/busybox"}, codes.InvalidArgument},
		"an unknown act": {&agentv1.FilesRequest{Act: 99, ContainerId: "c", Rootfs: root, Path: "/"}, codes.Unimplemented},
		"a long path":    {&agentv1.FilesRequest{Act: agentv1.FilesRequest_ACT_STAT, ContainerId: "c", Rootfs: root, Path: strings.Repeat("x", agentv1.MaxPath+1)}, codes.InvalidArgument},
		"no request":     {nil, codes.InvalidArgument},
	} {
		if _, _, _, err := act(t, s, c.request, nil); status.Code(err) != c.code {
			t.Errorf("%s: %v, want %v", name, err, c.code)
		}
	}
}

// TestFilesGivenUp leaves in the middle of an archive: the guest must end it and serve on.
func TestFilesGivenUp(t *testing.T) {
	t.Parallel()
	_, s, _ := realGuest(t)
	root := &agentv1.RootFS{ScratchSlot: 1}
	for range 3 {
		f, err := s.Files(soon(t), &agentv1.FilesRequest{Act: agentv1.FilesRequest_ACT_ARCHIVE, ContainerId: "c", Rootfs: root, Path: "/"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Next(); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	if _, err := s.Ping(soon(t)); err != nil {
		t.Errorf("the agent does not answer any more: %v", err)
	}
}
