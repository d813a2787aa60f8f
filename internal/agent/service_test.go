// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	agentv1 "github.com/micropod/micropod/api/agent/v1"
	"github.com/micropod/micropod/internal/agent/link"
	"github.com/micropod/micropod/internal/agent/reap"
	"github.com/micropod/micropod/internal/agent/runtime"
	"github.com/micropod/micropod/internal/guest"
)

// inFolder is the real runtime on this host, which has no drives: all containers share one folder as their root.
type inFolder struct {
	*runtime.Runtime
	dir string
}

func (c inFolder) Start(ctx context.Context, r runtime.StartRequest) (*runtime.Process, error) {
	r.RootFS = runtime.RootFS{Dir: c.dir}
	return c.Runtime.Start(ctx, r)
}

// OpenLayers has the folder for all three layers.
func (c inFolder) OpenLayers(runtime.RootFS, bool) (*runtime.Layers, error) {
	l := &runtime.Layers{}
	for _, f := range []**os.File{&l.Image, &l.Upper, &l.Root} {
		fd, err := unix.Open(c.dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		*f = os.NewFile(uintptr(fd), c.dir)
	}
	return l, nil
}

var sharedReaper = sync.OnceValue(func() *reap.Reaper { return reap.New(reap.Config{}) })

// machineLog notes what would be done to the machine: this host must not be touched.
type machineLog struct {
	mu   sync.Mutex
	acts []string
	off  chan struct{}
	fail string // the act that fails

	init     *fakeInit
	deafInit bool
}

func newMachineLog() *machineLog { return &machineLog{off: make(chan struct{})} }

func (m *machineLog) act(what string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.acts = append(m.acts, what)
	if what == m.fail {
		return errors.New("the kernel says no")
	}
	return nil
}

func (m *machineLog) AddEntropy(seed []byte) error { return m.act("entropy") }
func (m *machineLog) SetClock(t time.Time) error {
	return m.act("clock " + t.UTC().Format(time.DateOnly))
}
func (m *machineLog) SetHostname(n string) error   { return m.act("hostname " + n) }
func (m *machineLog) TellClone() error             { return m.act("clone") }
func (m *machineLog) SetMachineID(id string) error { return m.act("machine-id " + id) }
func (m *machineLog) SetLink(c link.Config, up bool) error {
	return m.act(fmt.Sprintf("%s up=%t mac %x mtu %d %v by %v %v", c.Name(), up, c.MAC, c.MTU, c.Addresses, c.Gateway4, c.Gateway6))
}
func (m *machineLog) Sync() { _ = m.act("sync") }
func (m *machineLog) PowerOff() error {
	close(m.off)
	return m.act("power off")
}

func (m *machineLog) list() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.acts)
}

// realGuest is a guest whose containers are real, in namespaces of their own on this host.
func realGuest(t *testing.T) (*guestSide, *guest.Session, *machineLog) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("containers need root")
	}
	group, err := os.MkdirTemp(unifiedMount(t), "micropod-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(group); err != nil {
			t.Errorf("a cgroup is left over: %v", err)
		}
	})
	r, err := runtime.New(runtime.Config{StateDir: t.TempDir(), CgroupRoot: group, Reaper: sharedReaper()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	log := newMachineLog()
	g := newGuest(t, Config{Containers: inFolder{r, busybox(t)}, Machine: log})
	s := g.connect(t)
	t.Cleanup(func() {
		for _, p := range g.processes.all() {
			if p.key.exec == "" && p.task != nil {
				_, _ = service{g.Server}.DeleteContainer(context.Background(), &agentv1.DeleteContainerRequest{Id: p.key.container})
			}
		}
	})
	return g, s, log
}

func unifiedMount(t *testing.T) string {
	t.Helper()
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
			return dir
		}
	}
	t.Skip("this host has no cgroup v2 hierarchy mounted")
	return ""
}

func busybox(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"bin", "etc", "tmp", "proc", "sys", "dev"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skipf("busybox-static is not installed: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "bin/busybox"), b, 0o755); err != nil {
		t.Fatal(err)
	}
	for name := range strings.FieldsSeq("sh cat echo sleep true id stty trap") {
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// spec is a small runtime spec, as the host sends it.
func spec(t *testing.T, change func(*specs.Spec), args ...string) []byte {
	t.Helper()
	s := &specs.Spec{
		Version: specs.Version,
		Root:    &specs.Root{},
		Process: &specs.Process{Args: args, Cwd: "/", Env: []string{"PATH=/bin"}},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs"},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"newinstance", "ptmxmode=0666"}},
		},
		Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{
			{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace}, {Type: specs.CgroupNamespace},
		}},
	}
	if change != nil {
		change(s)
	}
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func start(t *testing.T, s *guest.Session, id string, stdio *agentv1.Stdio, args ...string) {
	t.Helper()
	if _, err := s.Agent().StartContainer(soon(t), startOf(id, spec(t, nil, args...), stdio)); err != nil {
		t.Fatalf("starting %q: %v", args, err)
	}
}

func startOf(id string, spec []byte, stdio *agentv1.Stdio) *agentv1.StartContainerRequest {
	return &agentv1.StartContainerRequest{Id: id, Spec: spec, Rootfs: &agentv1.RootFS{ImageSlot: 0, ScratchSlot: 1}, Stdio: stdio}
}

func output(t *testing.T, s *guest.Session, id, exec string, stderr bool) string {
	t.Helper()
	out, err := s.Output(soon(t), id, exec, stderr, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	b, err := io.ReadAll(out)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func wait(t *testing.T, s *guest.Session, id, exec string) *agentv1.WaitResponse {
	t.Helper()
	r, err := s.Agent().Wait(soon(t), &agentv1.WaitRequest{ContainerId: id, ExecId: exec})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestContainerFromStartToDelete(t *testing.T) {
	t.Parallel()
	_, s, _ := realGuest(t)
	start(t, s, "c1", &agentv1.Stdio{Stdin: true}, "sh", "-c", "echo out; echo err >&2; cat; exit 42")
	in, _, err := s.Stdin(soon(t), "c1", "", 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write([]byte("in")); err != nil {
		t.Fatal(err)
	}
	in.Close()
	if got := output(t, s, "c1", "", false); got != "out\nin" {
		t.Errorf("stdout = %q", got)
	}
	if got := output(t, s, "c1", "", true); got != "err\n" {
		t.Errorf("stderr = %q", got)
	}
	if w := wait(t, s, "c1", ""); w.ExitCode != 42 || w.Signal != 0 || w.ExitedUnixNanos == 0 {
		t.Errorf("Wait = %v, want exit code 42", w)
	}
	state, err := s.Agent().State(soon(t), &agentv1.StateRequest{})
	if err != nil || len(state.Processes) != 1 || !state.Processes[0].Exited || state.Processes[0].Exit.ExitCode != 42 {
		t.Errorf("State = %v, %v, want one process that has exited with 42", state, err)
	}
	if _, err := s.Agent().DeleteContainer(soon(t), &agentv1.DeleteContainerRequest{Id: "c1"}); err != nil {
		t.Error(err)
	}
	_, err = s.Agent().DeleteContainer(soon(t), &agentv1.DeleteContainerRequest{Id: "c1"})
	if status.Code(err) != codes.NotFound {
		t.Errorf("second DeleteContainer = %v, want NotFound", err)
	}
	if _, err := s.Output(soon(t), "c1", "", false, 0); !errors.Is(err, guest.ErrNoStream) {
		t.Errorf("Output of a deleted container = %v, want %v", err, guest.ErrNoStream)
	}
}

func TestExecSignalStatsResize(t *testing.T) {
	t.Parallel()
	_, s, _ := realGuest(t)
	ctx := soon(t)
	start(t, s, "c", nil, "sh", "-c", "trap 'exit 7' TERM; echo ready; while true; do sleep 0.05; done")
	out, err := s.Output(ctx, "c", "", false, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	out.Close()

	process, _ := json.Marshal(&specs.Process{Args: []string{"sh", "-c", "echo $X; stty size; exit 3"}, Cwd: "/", Env: []string{"PATH=/bin", "X=exec"}, Terminal: true, ConsoleSize: &specs.Box{Height: 30, Width: 90}})
	if _, err := s.Agent().Exec(ctx, &agentv1.ExecRequest{ContainerId: "c", ExecId: "e", Process: process}); err != nil {
		t.Fatal(err)
	}
	if got := output(t, s, "c", "e", false); got != "exec\r\n30 90\r\n" {
		t.Errorf("exec's terminal says %q", got)
	}
	if w := wait(t, s, "c", "e"); w.ExitCode != 3 {
		t.Errorf("exec's exit = %v, want 3", w)
	}
	if _, err := s.Agent().DeleteProcess(ctx, &agentv1.DeleteProcessRequest{ContainerId: "c", ExecId: "e"}); err != nil {
		t.Error(err)
	}
	stats, err := s.Agent().Stats(ctx, &agentv1.StatsRequest{ContainerId: "c"})
	if err != nil || stats.Pids == 0 {
		t.Errorf("Stats = %v, %v, want some processes", stats, err)
	}
	if _, err := s.Agent().Signal(ctx, &agentv1.SignalRequest{ContainerId: "c", Signal: uint32(unix.SIGTERM)}); err != nil {
		t.Error(err)
	}
	if w := wait(t, s, "c", ""); w.ExitCode != 7 {
		t.Errorf("after SIGTERM: %v, want the trap's exit code 7", w)
	}
	for name, err := range map[string]error{
		"signal to the dead": last(s.Agent().Signal(ctx, &agentv1.SignalRequest{ContainerId: "c", Signal: 9})),
		"resize of a pipe":   last(s.Agent().Resize(ctx, &agentv1.ResizeRequest{ContainerId: "c", Rows: 1, Cols: 1})),
		"exec in the dead":   last(s.Agent().Exec(ctx, &agentv1.ExecRequest{ContainerId: "c", ExecId: "late", Process: process})),
	} {
		if status.Code(err) != codes.FailedPrecondition {
			t.Errorf("%s: %v, want FailedPrecondition", name, err)
		}
	}
}

func last[T any](_ T, err error) error { return err }

func TestErrorsHaveCodesAndSentences(t *testing.T) {
	t.Parallel()
	_, s, _ := realGuest(t)
	ctx := soon(t)
	a := s.Agent()
	start(t, s, "there", &agentv1.Stdio{Discard: true}, "sleep", "1000")
	long := func(change func(*specs.Spec)) []byte { return spec(t, change, "true") }
	withUser := startOf("c", long(nil), nil)
	withUser.User = "nobody-here"
	noRoot := startOf("c", long(nil), nil)
	noRoot.Rootfs = nil
	sameDrive := startOf("c", long(nil), nil)
	sameDrive.Rootfs.ScratchSlot = 0
	bigFile := startOf("c", long(nil), nil)
	bigFile.Files = []*agentv1.File{{Path: "/x", Content: make([]byte, agentv1.MaxFile+1)}}
	manyFiles := startOf("c", long(nil), nil)
	manyFiles.Files = make([]*agentv1.File, agentv1.MaxFiles+1)
	for i := range manyFiles.Files {
		manyFiles.Files[i] = &agentv1.File{Path: "/x"}
	}
	for _, c := range []struct {
		name string
		err  error
		code codes.Code
		say  string
	}{
		{"command not found", last(a.StartContainer(ctx, startOf("c", spec(t, nil, "foo"), nil))), codes.NotFound, `exec: "foo": executable file not found in $PATH`},
		{"not executable", last(a.StartContainer(ctx, startOf("c", spec(t, nil, "/etc"), nil))), codes.PermissionDenied, "is a directory"},
		{"unknown user", last(a.StartContainer(ctx, withUser)), codes.InvalidArgument, "nobody-here"},
		{"name taken", last(a.StartContainer(ctx, startOf("there", long(nil), nil))), codes.AlreadyExists, "there"},
		{"bad id", last(a.StartContainer(ctx, startOf("../x", long(nil), nil))), codes.InvalidArgument, "../x"},
		{"no id", last(a.StartContainer(ctx, startOf("", long(nil), nil))), codes.InvalidArgument, "id"},
		{"bad spec", last(a.StartContainer(ctx, startOf("c", []byte("{"), nil))), codes.InvalidArgument, "spec"},
		{"long spec", last(a.StartContainer(ctx, startOf("c", make([]byte, agentv1.MaxSpec+1), nil))), codes.InvalidArgument, "spec"},
		{"no root", last(a.StartContainer(ctx, noRoot)), codes.InvalidArgument, "root file system"},
		{"one drive twice", last(a.StartContainer(ctx, sameDrive)), codes.InvalidArgument, "drives"},
		{"big file", last(a.StartContainer(ctx, bigFile)), codes.InvalidArgument, "/x"},
		{"many files", last(a.StartContainer(ctx, manyFiles)), codes.InvalidArgument, "files"},
		{"exec nowhere", last(a.Exec(ctx, &agentv1.ExecRequest{ContainerId: "x", ExecId: "e", Process: []byte("{}")})), codes.FailedPrecondition, "x"},
		{"exec without id", last(a.Exec(ctx, &agentv1.ExecRequest{ContainerId: "there"})), codes.InvalidArgument, "id"},
		{"exec not found", last(a.Exec(ctx, &agentv1.ExecRequest{ContainerId: "there", ExecId: "e", Process: []byte(`{"args":["foo"],"cwd":"/"}`)})), codes.NotFound, `"foo"`},
		{"wait for nobody", last(a.Wait(ctx, &agentv1.WaitRequest{ContainerId: "x"})), codes.NotFound, "x"},
		{"signal nobody", last(a.Signal(ctx, &agentv1.SignalRequest{ContainerId: "x"})), codes.NotFound, "x"},
		{"signal 99", last(a.Signal(ctx, &agentv1.SignalRequest{ContainerId: "there", Signal: 99})), codes.InvalidArgument, "99"},
		{"resize nobody", last(a.Resize(ctx, &agentv1.ResizeRequest{ContainerId: "x"})), codes.NotFound, "x"},
		{"resize too large", last(a.Resize(ctx, &agentv1.ResizeRequest{ContainerId: "there", Rows: 1 << 16})), codes.InvalidArgument, "65535"},
		{"stats of nobody", last(a.Stats(ctx, &agentv1.StatsRequest{ContainerId: "x"})), codes.NotFound, "x"},
		{"forget a first process", last(a.DeleteProcess(ctx, &agentv1.DeleteProcessRequest{ContainerId: "there"})), codes.InvalidArgument, "first"},
		{"forget nobody", last(a.DeleteProcess(ctx, &agentv1.DeleteProcessRequest{ContainerId: "there", ExecId: "x"})), codes.NotFound, "x"},
	} {
		if status.Code(c.err) != c.code || !strings.Contains(c.err.Error(), c.say) {
			t.Errorf("%s: %v, want %v with %q", c.name, c.err, c.code, c.say)
		}
	}
	if _, err := s.Output(ctx, "there", "", false, 0); !errors.Is(err, guest.ErrNoStream) {
		t.Errorf("Output of a process whose output is dropped = %v, want %v", err, guest.ErrNoStream)
	}
	waiting, cancel := context.WithCancel(ctx)
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, err := a.Wait(waiting, &agentv1.WaitRequest{ContainerId: "there"}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled Wait = %v", err)
	}
}

func TestProcessOutlivesTheSession(t *testing.T) {
	t.Parallel()
	g, s, _ := realGuest(t)
	start(t, s, "c", &agentv1.Stdio{Stdin: true}, "sh", "-c", "echo one; cat; echo two; exit 5")
	waiting := make(chan error, 1)
	go func() {
		_, err := s.Agent().Wait(context.Background(), &agentv1.WaitRequest{ContainerId: "c"})
		waiting <- err
	}()
	s.Close()
	if err := <-waiting; !errors.Is(err, guest.ErrEnded) {
		t.Errorf("Wait in a session that ends = %v, want %v", err, guest.ErrEnded)
	}
	s = g.connect(t)
	in, _, err := s.Stdin(soon(t), "c", "", 0)
	if err != nil {
		t.Fatal(err)
	}
	in.Close()
	if got := output(t, s, "c", "", false); got != "one\ntwo\n" {
		t.Errorf("stdout = %q, want all of both sessions", got)
	}
	if w := wait(t, s, "c", ""); w.ExitCode != 5 {
		t.Errorf("exit = %v, want 5", w)
	}
}

func TestShutdownEndsContainersThenTheMachine(t *testing.T) {
	t.Parallel()
	_, s, log := realGuest(t)
	start(t, s, "good", nil, "sh", "-c", "trap 'exit 0' TERM; while true; do sleep 0.05; done")
	start(t, s, "bad", nil, "sh", "-c", "trap '' TERM; while true; do sleep 0.05; done")
	if _, err := s.Agent().Shutdown(soon(t), &agentv1.ShutdownRequest{}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-log.off:
	case <-soon(t).Done():
		t.Fatal("the machine was not powered off")
	}
	if acts := log.list(); !slices.Equal(acts, []string{"sync", "power off"}) {
		t.Errorf("the machine saw %q, want sync, then power off", acts)
	}
	if w := wait(t, s, "bad", ""); w.Signal != uint32(unix.SIGKILL) || w.ExitCode != 137 {
		t.Errorf("container deaf to SIGTERM ended with %v, want SIGKILL", w)
	}
	_, err := s.Agent().StartContainer(soon(t), startOf("late", spec(t, nil, "true"), nil))
	if status.Code(err) != codes.FailedPrecondition {
		t.Errorf("StartContainer after Shutdown = %v, want FailedPrecondition", err)
	}
}

func TestSetInterface(t *testing.T) {
	t.Parallel()
	log := newMachineLog()
	s := newGuest(t, Config{Machine: log}).connect(t)
	r := &agentv1.SetInterfaceRequest{Down: true, Interface: &agentv1.NetworkInterface{Index: 2, Gateway6: make([]byte, 16)}}
	if _, err := s.Agent().SetInterface(soon(t), r); err != nil {
		t.Fatal(err)
	}
	if want := []string{"eth2 up=false mac  mtu 0 [] by invalid IP ::"}; !slices.Equal(log.list(), want) {
		t.Errorf("the machine saw %q, want %q", log.list(), want)
	}
	log.fail = log.list()[0]
	if _, err := s.Agent().SetInterface(soon(t), r); status.Code(err) != codes.Internal {
		t.Errorf("SetInterface = %v, want Internal", err)
	}
	if _, err := s.Agent().SetInterface(soon(t), &agentv1.SetInterfaceRequest{}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("SetInterface of none = %v, want InvalidArgument", err)
	}
}

func TestIdentify(t *testing.T) {
	t.Parallel()
	good := func() *agentv1.IdentifyRequest {
		return &agentv1.IdentifyRequest{
			Entropy: make([]byte, 64), UnixNanos: time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC).UnixNano(),
			Hostname: "box", MachineId: strings.Repeat("0f", 16),
			Interfaces: []*agentv1.NetworkInterface{{
				Index: 1, Mac: []byte{2, 0, 0, 0, 0, 1}, Mtu: 1400, Gateway4: []byte{10, 0, 0, 1},
				Addresses: []*agentv1.Address{{Ip: []byte{10, 0, 0, 2}, Prefix: 24}},
			}},
		}
	}
	log := newMachineLog()
	s := newGuest(t, Config{Machine: log}).connect(t)
	if _, err := s.Agent().Identify(soon(t), good()); err != nil {
		t.Fatal(err)
	}
	want := []string{"entropy", "clock 2026-01-02", "hostname box", "machine-id " + strings.Repeat("0f", 16),
		"eth1 up=true mac 020000000001 mtu 1400 [10.0.0.2/24] by 10.0.0.1 invalid IP"}
	if got := log.list(); !slices.Equal(got, want) {
		t.Errorf("the machine saw %q, want %q", got, want)
	}
	clone := good()
	clone.Clone = true
	if _, err := s.Agent().Identify(soon(t), clone); err != nil || log.list()[len(log.list())-1] != "clone" {
		t.Errorf("Identify of a clone = %v; the machine saw %q last, want that processes were told", err, log.list())
	}
	want = log.list()
	for name, spoil := range map[string]func(*agentv1.IdentifyRequest){
		"little entropy": func(r *agentv1.IdentifyRequest) { r.Entropy = r.Entropy[:agentv1.MinEntropy-1] },
		"much entropy":   func(r *agentv1.IdentifyRequest) { r.Entropy = make([]byte, agentv1.MaxEntropy+1) },
		"no time":        func(r *agentv1.IdentifyRequest) { r.UnixNanos = 0 },
		"no name":        func(r *agentv1.IdentifyRequest) { r.Hostname = "" },
		"long name":      func(r *agentv1.IdentifyRequest) { r.Hostname = strings.Repeat("n", 65) },
		"short id":       func(r *agentv1.IdentifyRequest) { r.MachineId = "0f" },
		"id not in hex":  func(r *agentv1.IdentifyRequest) { r.MachineId = strings.Repeat("xy", 16) },
		"many interfaces": func(r *agentv1.IdentifyRequest) {
			r.Interfaces = make([]*agentv1.NetworkInterface, agentv1.MaxInterfaces+1)
		},
		"interface 16":     func(r *agentv1.IdentifyRequest) { r.Interfaces[0].Index = agentv1.MaxInterfaces },
		"long MAC":         func(r *agentv1.IdentifyRequest) { r.Interfaces[0].Mac = make([]byte, 8) },
		"large MTU":        func(r *agentv1.IdentifyRequest) { r.Interfaces[0].Mtu = 1 << 16 },
		"address of bytes": func(r *agentv1.IdentifyRequest) { r.Interfaces[0].Addresses[0].Ip = []byte{1, 2, 3} },
		"no address":       func(r *agentv1.IdentifyRequest) { r.Interfaces[0].Addresses[0] = nil },
		"long prefix":      func(r *agentv1.IdentifyRequest) { r.Interfaces[0].Addresses[0].Prefix = 33 },
		"v6 as v4 gateway": func(r *agentv1.IdentifyRequest) { r.Interfaces[0].Gateway4 = make([]byte, 16) },
		"many addresses": func(r *agentv1.IdentifyRequest) {
			r.Interfaces[0].Addresses = make([]*agentv1.Address, agentv1.MaxAddresses+1)
		},
		"id with newline": func(r *agentv1.IdentifyRequest) { r.MachineId = strings.Repeat("0f", 15) + "\n0" },
	} {
		r := good()
		spoil(r)
		if _, err := s.Agent().Identify(soon(t), r); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v, want InvalidArgument", name, err)
		}
	}
	if got := log.list(); len(got) != len(want) {
		t.Errorf("refused requests did %q", got[len(want):])
	}
	log.fail = "hostname box"
	if _, err := s.Agent().Identify(soon(t), good()); status.Code(err) != codes.Internal || !strings.Contains(err.Error(), "host name") {
		t.Errorf("Identify = %v, want the step that failed", err)
	}
}
