// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/agent/reap"
)

// The test binary is the runtime's child itself.
func TestMain(m *testing.M) {
	Child()
	flag.Parse()
	// The go command hides the folder for counters in a flag of the test binary's.
	if dir := flag.Lookup("test.gocoverdir").Value.String(); testing.CoverMode() == "atomic" && dir != "" {
		os.Exit(countingChildren(m, dir))
	}
	os.Exit(m.Run())
}

// countingChildren runs the tests with children that save their counters to dir.
func countingChildren(m *testing.M, dir string) int {
	folder, err := os.MkdirTemp("", "micropod-child-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(folder)
	ownBinary = filepath.Join(folder, "child")
	counted := "github.com/micropod/micropod/internal/agent/runtime,./testdata/child" // without main no counter works
	cmd := exec.Command("go", "build", "-cover", "-covermode=atomic", "-coverpkg="+counted, "-tags", "cover", "-o", ownBinary, "./testdata/child")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		panic(fmt.Sprintf("building the children: %v\n%s", err, out))
	}
	if err := os.Setenv("GOCOVERDIR", dir); err != nil {
		panic(err)
	}
	return m.Run()
}

// shared by all tests of the package, as in an agent.
var (
	sharedReaper = sync.OnceValue(func() *reap.Reaper { return reap.New(reap.Config{}) })
	nextID       atomic.Uint64
)

// unifiedMount is where this host has cgroup v2: alone, or beside v1.
func unifiedMount(t testing.TB) string {
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

// newRuntime makes a Runtime that is closed, with its cgroups, when the test ends.
func newRuntime(t testing.TB) *Runtime {
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
	r, err := New(Config{StateDir: t.TempDir(), CgroupRoot: group, Reaper: sharedReaper()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// busybox makes a root file system of Debian's busybox-static.
func busybox(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"bin", "etc", "tmp", "root", "proc", "sys", "dev"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(dir, "tmp"), 0o1777); err != nil {
		t.Fatal(err)
	}
	copyFile(t, "/bin/busybox", filepath.Join(dir, "bin/busybox"))
	for name := range strings.FieldsSeq("sh ls cat echo true false id pwd sleep mount stat env kill hostname ps dd mknod mkdir readlink tty stty grep head wc setsid test chmod touch awk seq sort tail printf sysctl nproc umask ulimit") {
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	write(t, dir, "etc/passwd", "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:App:/home/app:/bin/sh\n")
	write(t, dir, "etc/group", "root:x:0:\napp:x:1000:\nwheel:x:10:app\naudio:x:29:app\n")
	return dir
}

func copyFile(t testing.TB, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Skipf("busybox-static is not installed: %v", err)
	}
	if err := os.WriteFile(to, b, 0o755); err != nil {
		t.Fatal(err)
	}
}

func write(t testing.TB, dir, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

var dockerCaps = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
	"CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

// dockerSpec is the spec of a container as Docker would run it.
func dockerSpec(args ...string) *specs.Spec {
	return &specs.Spec{
		Version:  specs.Version,
		Root:     &specs.Root{},
		Hostname: "box",
		Process: &specs.Process{
			Args: args, Cwd: "/", Env: []string{"PATH=/bin"},
			Capabilities: &specs.LinuxCapabilities{Bounding: dockerCaps, Effective: dockerCaps, Permitted: dockerCaps},
		},
		Mounts: standardMounts,
		Linux: &specs.Linux{
			MaskedPaths: standardMasked, ReadonlyPaths: standardReadonly,
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.IPCNamespace},
				{Type: specs.UTSNamespace}, {Type: specs.CgroupNamespace},
			},
		},
	}
}

func request(root string, spec *specs.Spec) StartRequest {
	return StartRequest{ID: fmt.Sprintf("c%d", nextID.Add(1)), Spec: spec, RootFS: RootFS{Dir: root}}
}

// result is what a container's process left.
type result struct {
	Exit
	out, err string
}

// run starts a container, reads its output to the end, and deletes it.
func run(t testing.TB, r *Runtime, req StartRequest) result {
	t.Helper()
	got, err := tryRun(t, r, req)
	if err != nil {
		t.Fatalf("starting %q: %v", req.Spec.Process.Args, err)
	}
	return got
}

func tryRun(t testing.TB, r *Runtime, req StartRequest) (result, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	p, err := r.Start(ctx, req)
	if err != nil {
		return result{}, err
	}
	got := drain(t, p)
	if err := r.Delete(ctx, req.ID); err != nil {
		t.Fatalf("deleting: %v", err)
	}
	return got, nil
}

// drain reads a process's output to its end and waits for it.
func drain(t testing.TB, p *Process) result {
	t.Helper()
	var got result
	var wg sync.WaitGroup
	read := func(from io.ReadCloser, to *string) {
		if from == nil {
			return
		}
		wg.Go(func() {
			b, err := io.ReadAll(from)
			*to = string(b)
			if err != nil {
				t.Errorf("reading output: %v", err)
			}
			from.Close()
		})
	}
	read(p.Stdout, &got.out)
	read(p.Stderr, &got.err)
	wg.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var err error
	if got.Exit, err = p.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	return got
}

// shell runs a script in a fresh busybox container made as Docker would.
func shell(t testing.TB, r *Runtime, script string, change ...func(*StartRequest)) result {
	t.Helper()
	req := request(busybox(t), dockerSpec("/bin/sh", "-c", script))
	for _, c := range change {
		c(&req)
	}
	return run(t, r, req)
}

// mustRun runs a program of the host's.
func mustRun(t testing.TB, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed", name)
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}
