// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package guest_test

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	agentv1 "github.com/micropod/micropod/api/agent/v1"
	"github.com/micropod/micropod/internal/guest"
)

// connect begins a session with a machine, however long it still boots.
func connect(t *testing.T, m *machine) *guest.Session {
	t.Helper()
	s, err := guest.Connect(within(t, time.Minute), m.dial(t), guest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// tool runs a program of the host's, which the test cannot do without.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed", name)
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return string(out)
}

// drives makes a busybox image and an empty scratch disk.
func drives(t *testing.T) (image, scratch string) {
	t.Helper()
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	for _, d := range []string{"bin", "etc", "tmp", "proc", "sys", "dev"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skipf("busybox-static is not installed: %v", err)
	}
	if err := os.WriteFile(filepath.Join(root, "bin/busybox"), b, 0o755); err != nil {
		t.Fatal(err)
	}
	for name := range strings.FieldsSeq("sh cat echo dd true sleep hostname wc") {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	image, scratch = filepath.Join(dir, "image.erofs"), filepath.Join(dir, "scratch.ext4")
	tool(t, "mkfs.erofs", image, root)
	if err := os.WriteFile(scratch, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(scratch, 256<<20); err != nil {
		t.Fatal(err)
	}
	tool(t, "mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", scratch)
	return image, scratch
}

func spec(t *testing.T, args ...string) []byte {
	t.Helper()
	b, err := json.Marshal(&specs.Spec{
		Version:  specs.Version,
		Root:     &specs.Root{},
		Hostname: "box",
		Process:  &specs.Process{Args: args, Cwd: "/", Env: []string{"PATH=/bin"}},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs"},
		},
		Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{
			{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace}, {Type: specs.CgroupNamespace},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// running is a container in a machine.
type running struct {
	s  *guest.Session
	id string
}

func start(t *testing.T, s *guest.Session, id string, args ...string) running {
	t.Helper()
	_, err := s.Agent().StartContainer(within(t, time.Minute), &agentv1.StartContainerRequest{
		Id: id, Spec: spec(t, args...), Rootfs: &agentv1.RootFS{ImageSlot: 0, ScratchSlot: 1},
	})
	if err != nil {
		t.Fatalf("starting %q: %v", args, err)
	}
	return running{s, id}
}

// finish reads a container's output to its end and deletes it.
func (r running) finish(t *testing.T) (out string, exit *agentv1.WaitResponse) {
	t.Helper()
	o, err := r.s.Output(within(t, time.Minute), r.id, "", false, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	b, err := io.ReadAll(o)
	if err != nil {
		t.Fatal(err)
	}
	exit, err = r.s.Agent().Wait(within(t, time.Minute), &agentv1.WaitRequest{ContainerId: r.id})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.s.Agent().DeleteContainer(within(t, time.Minute), &agentv1.DeleteContainerRequest{Id: r.id}); err != nil {
		t.Fatal(err)
	}
	return string(b), exit
}

// TestMachine boots one real machine and takes it through its life; the steps build on each other.
func TestMachine(t *testing.T) {
	t.Parallel()
	image, scratch := drives(t)
	parent, m := t, boot(t, image, scratch)
	begin := time.Now()
	s := connect(t, m)
	t.Logf("agent %s on kernel %s answered %v after QEMU's start", s.Hello().AgentVersion, s.Hello().KernelVersion, time.Since(begin))

	t.Run("round trip", func(t *testing.T) { roundTrip(t, s) })
	if id := s.Hello().BootId; id != "" {
		t.Errorf("before Identify the machine has boot id %q: those restored from one template would share it", id)
	}
	t.Run("identify", func(t *testing.T) {
		_, err := s.Agent().Identify(within(t, 10*time.Second), &agentv1.IdentifyRequest{
			Entropy: make([]byte, 64), UnixNanos: time.Now().UnixNano(),
			Hostname: "one", MachineId: strings.Repeat("0f", 16),
		})
		if err != nil {
			t.Error(err)
		}
		s.Close()
		s = connect(parent, m)
	})
	t.Run("a new session replaces the old", func(t *testing.T) {
		for range 5 {
			old := s
			old.Close()
			s = connect(parent, m)
			if s.Hello().BootId != old.Hello().BootId || s.Hello().BootId == "" {
				t.Errorf("boot id %q, then %q: not the same machine", old.Hello().BootId, s.Hello().BootId)
			}
		}
	})
	t.Run("containers", func(t *testing.T) { containers(t, s) })
	t.Run("throughput", func(t *testing.T) { throughput(t, s) })
	t.Run("shutdown", func(t *testing.T) {
		start(t, s, "last", "sh", "-c", "echo kept > /kept; echo ready; sleep 1000")
		shutDown(t, m, s)
		if out := tool(t, "e2fsck", "-fn", scratch); strings.Contains(out, "recovering journal") {
			t.Errorf("the scratch disk was not unmounted: %s", out)
		}
	})
}

func roundTrip(t *testing.T, s *guest.Session) {
	var trips []time.Duration
	for range 500 {
		d, err := s.Ping(within(t, 10*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		trips = append(trips, d)
	}
	slices.Sort(trips)
	p50 := trips[len(trips)/2]
	t.Logf("Hello: p50 %v, p99 %v", p50, trips[len(trips)*99/100])
	if p50 > 30*time.Millisecond { // 3 ms on a quiet machine: the bench holds that
		t.Errorf("median round trip %v", p50)
	}
}

func containers(t *testing.T, s *guest.Session) {
	for i, id := range []string{"first", "second", "third"} {
		begin := time.Now()
		out, exit := start(t, s, id, "sh", "-c", "echo x >> /changed; wc -l < /changed; hostname; exit 3").finish(t)
		t.Logf("container %d: %v from start to deleted", i+1, time.Since(begin))
		if exit.ExitCode != 3 {
			t.Errorf("%s: exit %v, want 3", id, exit)
		}
		if !strings.HasSuffix(out, "box\n") {
			t.Errorf("%s says %q", id, out)
		}
	}
	_, err := s.Agent().StartContainer(within(t, time.Minute), &agentv1.StartContainerRequest{
		Id: "none", Spec: spec(t, "foo"), Rootfs: &agentv1.RootFS{ImageSlot: 0, ScratchSlot: 1},
	})
	if status.Code(err) != codes.NotFound || !strings.Contains(err.Error(), `exec: "foo": executable file not found in $PATH`) {
		t.Errorf("unknown command: %v", err)
	}
}

// throughput carries bytes from a container to the host, with a reader that acknowledges as it goes.
func throughput(t *testing.T, s *guest.Session) {
	const size = 128 << 20
	r := start(t, s, "bytes", "dd", "if=/dev/zero", "bs=64k", "count=2048")
	begin := time.Now()
	o, err := s.Output(within(t, time.Minute), "bytes", "", false, 0)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64<<10)
	for {
		_, err := o.Read(buf)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		o.Ack(o.Offset())
	}
	if o.Offset() != size {
		t.Errorf("%d bytes, want %d", o.Offset(), size)
	}
	t.Logf("stdout: %.0f MB/s", size/1e6/time.Since(begin).Seconds())
	o.Close()
	r.finish(t)
}

func shutDown(t *testing.T, m *machine, s *guest.Session) {
	begin := time.Now()
	if _, err := s.Agent().Shutdown(within(t, 20*time.Second), &agentv1.ShutdownRequest{}); err != nil {
		t.Error(err)
	}
	answered := time.Since(begin)
	select {
	case <-m.exited:
		t.Logf("answered after %v, QEMU ended after %v", answered, time.Since(begin))
	case <-time.After(20 * time.Second):
		t.Error("QEMU goes on after Shutdown")
	}
}
