// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// running starts a container that says "ready" once script got so far, and is deleted when the test ends.
func running(t *testing.T, r *Runtime, script string, change ...func(*StartRequest)) (string, *Process, *bufio.Reader) {
	t.Helper()
	req := request(busybox(t), dockerSpec("/bin/sh", "-c", script))
	for _, c := range change {
		c(&req)
	}
	p, err := r.Start(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Delete(context.Background(), req.ID); err != nil && !errors.Is(err, ErrNotFound) {
			t.Errorf("deleting: %v", err)
		}
	})
	out := bufio.NewReader(p.Stdout)
	expect(t, out, "ready")
	return req.ID, p, out
}

func expect(t *testing.T, out *bufio.Reader, want string) {
	t.Helper()
	line, err := out.ReadString('\n')
	if strings.TrimSpace(line) != want {
		t.Fatalf("got line %q, %v, want %q", line, err, want)
	}
}

func process(args ...string) *specs.Process {
	return &specs.Process{Args: args, Cwd: "/", Env: []string{"PATH=/bin"}}
}

func execIn(t *testing.T, r *Runtime, id string, req ExecRequest) result {
	t.Helper()
	p, err := r.Exec(t.Context(), id, req)
	if err != nil {
		t.Fatal(err)
	}
	return drain(t, p)
}

func TestExecEntersTheContainer(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	id, first, _ := running(t, r, "echo inside > /tmp/mark; mkdir /tmp/m; echo ready; sleep 1000")
	script := `cat /tmp/mark; hostname; id -u; pwd
for n in pid mnt ipc uts cgroup net; do test "$(readlink /proc/self/ns/$n)" = "$(readlink /proc/1/ns/$n)" || echo "other $n"; done
cat /proc/self/cgroup; ls /proc/$$/fd; exit 7`
	got := execIn(t, r, id, ExecRequest{ID: "e", Process: process("/bin/sh", "-c", script)})
	want := "inside\nbox\n0\n/\n0::/\n0\n1\n2\n"
	// Beside the hierarchy of v2, a host of v1 has others, which are none of ours.
	got.out = withoutV1(got.out)
	if got.Code != 7 || got.out != want {
		t.Errorf("got %+v, want output %q and code 7", got, want)
	}
	if stats, err := r.Stats(id); err != nil || stats.Pids == 0 {
		t.Errorf("stats: got %+v, %v", stats, err)
	}
	if err := first.Signal(syscall.SIGKILL, false); err != nil {
		t.Error(err)
	}
	if exit, err := first.Wait(t.Context()); err != nil || exit.Code != 137 || exit.Signal != syscall.SIGKILL {
		t.Errorf("got %+v, %v, want code 137", exit, err)
	}
	if _, err := r.Exec(t.Context(), id, ExecRequest{Process: process("true")}); !errors.Is(err, ErrNotRunning) {
		t.Errorf("exec in an ended container: got %v, want ErrNotRunning", err)
	}
	if _, err := r.Exec(t.Context(), "no-such", ExecRequest{Process: process("true")}); !errors.Is(err, ErrNotFound) {
		t.Errorf("exec in no container: got %v, want ErrNotFound", err)
	}
}

func withoutV1(out string) string {
	var kept strings.Builder
	for line := range strings.Lines(out) {
		if strings.Count(line, ":") != 2 || strings.HasPrefix(line, "0::") {
			kept.WriteString(line)
		}
	}
	return kept.String()
}

func TestExecRequests(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	id, _, _ := running(t, r, "echo ready; sleep 1000")
	score := 321
	asUser := process("/bin/sh", "-c", "id -u; echo $HOME; cat /proc/self/oom_score_adj; awk '/CapBnd/{print $2}' /proc/self/status; cat")
	asUser.OOMScoreAdj = &score
	p, err := r.Exec(t.Context(), id, ExecRequest{Process: asUser, User: "app", Stdin: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(p.Stdin, "typed\n"); err != nil {
		t.Error(err)
	}
	p.Stdin.Close()
	if got := drain(t, p); got.out != "1000\n/home/app\n321\n00000000a80425fb\ntyped\n" {
		t.Errorf("got %q, %q", got.out, got.err)
	}
	if got := execIn(t, r, id, ExecRequest{Process: process("/bin/sh", "-c", "kill -TERM $$")}); got.Code != 143 || got.Signal != syscall.SIGTERM {
		t.Errorf("a process ended by SIGTERM: got %+v, want code 143", got)
	}
	for name, tc := range map[string]struct {
		req  ExecRequest
		kind error
	}{
		"not found":      {ExecRequest{Process: process("foo")}, ErrCommandNotFound},
		"not executable": {ExecRequest{Process: process("/etc")}, ErrNotExecutable},
		"unknown user":   {ExecRequest{Process: process("true"), User: "nobody"}, ErrUser},
		"missing folder": {ExecRequest{Process: &specs.Process{Args: []string{"true"}, Cwd: "/nope"}}, ErrWorkingDir},
		"no process":     {ExecRequest{}, ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := r.Exec(t.Context(), id, tc.req); !errors.Is(err, tc.kind) {
				t.Errorf("got %v, want %v", err, tc.kind)
			}
		})
	}
}

// PID 1 of a pid namespace gets only the signals that it catches, and SIGKILL.
func TestSignals(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	_, p, out := running(t, r, "trap 'echo usr1' USR1; trap 'echo term; exit 5' TERM; echo ready; while true; do sleep 0.05; done")
	if err := p.Signal(syscall.SIGHUP, false); err != nil { // not caught: nothing happens
		t.Fatal(err)
	}
	for _, step := range []struct {
		sig  syscall.Signal
		line string
	}{{syscall.SIGUSR1, "usr1"}, {syscall.SIGTERM, "term"}} {
		if err := p.Signal(step.sig, false); err != nil {
			t.Fatal(err)
		}
		expect(t, out, step.line)
	}
	if exit, err := p.Wait(t.Context()); err != nil || exit.Code != 5 {
		t.Errorf("got %+v, %v, want code 5", exit, err)
	}
	if err := p.Signal(syscall.SIGTERM, false); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("got %v, want os.ErrProcessDone", err)
	}
}

func TestSignalToAll(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	script := "(trap 'echo child; exit' TERM; echo ready; while true; do sleep 0.05; done) & trap : TERM; wait; wait; echo parent; exit 3"
	_, p, out := running(t, r, script)
	if err := p.Signal(syscall.SIGTERM, true); err != nil {
		t.Fatal(err)
	}
	expect(t, out, "child")
	expect(t, out, "parent")
	if exit, err := p.Wait(t.Context()); err != nil || exit.Code != 3 {
		t.Errorf("got %+v, %v, want code 3", exit, err)
	}
}

func TestSignalKillToAll(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	id, p, _ := running(t, r, "sleep 1000 & echo ready; wait")
	if err := p.Signal(syscall.SIGKILL, true); err != nil {
		t.Fatal(err)
	}
	if exit, err := p.Wait(t.Context()); err != nil || exit.Code != 137 {
		t.Errorf("got %+v, %v, want code 137", exit, err)
	}
	if err := r.Delete(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if err := p.Signal(syscall.SIGKILL, true); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("after Delete: got %v, want os.ErrProcessDone", err)
	}
}

// With Init, an orphan is reaped, signals reach the command, and the end is the command's.
func TestInit(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	withInit := func(r *StartRequest) { r.Init = true }

	script := `(sleep 0.01 & exit 0); while ps -o pid,stat | grep -q ' Z'; do :; done
echo $$; tr '\0' ' ' < /proc/1/cmdline; trap 'echo got term; exit 9' TERM; echo ready2; while true; do sleep 0.05; done`
	_, p, out := running(t, r, "echo ready; "+strings.ReplaceAll(script, "tr '\\0' ' ' < /proc/1/cmdline", "head -c 13 /proc/1/cmdline; echo"), withInit)
	line, _ := out.ReadString('\n')
	if strings.TrimSpace(line) == "1" {
		t.Error("the command is PID 1 itself")
	}
	expect(t, out, initName)
	expect(t, out, "ready2")
	if err := p.Signal(syscall.SIGTERM, false); err != nil {
		t.Fatal(err)
	}
	expect(t, out, "got term")
	if exit, err := p.Wait(t.Context()); err != nil || exit.Code != 9 {
		t.Errorf("got %+v, %v, want code 9", exit, err)
	}

	if got := shell(t, r, "kill -SEGV $$", withInit); got.Code != 128+int(syscall.SIGSEGV) {
		t.Errorf("command ended by SIGSEGV: got %+v, want code 139", got)
	}
	got := shell(t, r, "awk '/CapEff|Seccomp:|Uid/{print $2}' /proc/1/status; id -u", withInit, func(r *StartRequest) { r.User = "app" })
	if got.out != "1000\n0000000000000000\n0\n1000\n" {
		t.Errorf("init runs as (uid, capabilities, seccomp) %q, want the container's user", got.out)
	}
	// The agent's binary cannot be changed from inside, whatever capabilities are there.
	got = shell(t, r, "echo x >> /proc/1/exe", withInit)
	if !strings.Contains(got.err, "Text file busy") && !strings.Contains(got.err, "Read-only") {
		t.Errorf("writing to the agent's binary: got %q, want a refusal", got.err)
	}
}

// Nobody can write to the agent's binary by way of init, even when it no longer runs.
func TestBinaryIsReadOnly(t *testing.T) {
	t.Parallel()
	f, err := openBinary()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, err = os.OpenFile(procPath(int(f.Fd())), os.O_WRONLY, 0)
	if !errors.Is(err, unix.EROFS) && !errors.Is(err, unix.ETXTBSY) {
		t.Errorf("got %v, want EROFS", err)
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil || st.Flags&unix.ST_RDONLY == 0 {
		t.Errorf("the mount's flags are %#x, %v, want read-only", st.Flags, err)
	}
}

func TestStartOfWhatIsThere(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	id, _, _ := running(t, r, "echo ready; sleep 1000")
	req := request(busybox(t), dockerSpec("true"))
	req.ID = id
	if _, err := r.Start(t.Context(), req); !errors.Is(err, ErrExists) {
		t.Errorf("got %v, want ErrExists", err)
	}
}

// A start whose context ended leaves nothing, and the next one works.
func TestCancelledStart(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	req := request(busybox(t), dockerSpec("true"))
	if _, err := r.Start(ctx, req); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	if got := run(t, r, req); got.Code != 0 {
		t.Errorf("got %+v", got)
	}
}

// The stem that is kept ready may be killed, by the kernel for lack of memory perhaps.
func TestStemThatDied(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	stem := <-r.ready
	if err := stem.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-stem.Done()
	r.ready <- stem
	if got := shell(t, r, "echo alive"); got.out != "alive\n" {
		t.Errorf("got %+v", got)
	}
}

func TestDeleteFreesAll(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	id, p, _ := running(t, r, "setsid sleep 1000 & mkdir -p /sys/fs/cgroup/x; echo ready; exec sleep 1000")
	path := r.containers[id].group.path
	ns, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(p.Pid()), "ns/mnt"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Delete(ctx, id); err == nil {
		t.Log("deleted in no time")
	} else if err := r.Delete(t.Context(), id); err != nil {
		t.Fatalf("deleting after a cancelled try: %v", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the cgroup is still there: %v", err)
	}
	links, _ := filepath.Glob("/proc/[0-9]*/ns/mnt")
	for _, link := range links {
		if got, _ := os.Readlink(link); got == ns {
			t.Errorf("%s is still in the container's mount namespace", link)
		}
	}
	if err := r.Delete(t.Context(), id); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
	if _, err := r.Stats(id); !errors.Is(err, ErrNotFound) {
		t.Errorf("stats of a deleted container: got %v, want ErrNotFound", err)
	}
}

func TestClosedRuntime(t *testing.T) {
	t.Parallel()
	if _, err := New(Config{}); err == nil {
		t.Error("New without a config works")
	}
	if _, err := New(Config{StateDir: t.TempDir(), CgroupRoot: t.TempDir(), Reaper: sharedReaper()}); err == nil || !strings.Contains(err.Error(), "cgroup v2") {
		t.Errorf("New with an ordinary folder as cgroup: got %v", err)
	}
}

func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	root := busybox(t)
	results := make(chan result)
	start := time.Now()
	for range 20 {
		go func() { results <- run(t, r, request(root, dockerSpec("/bin/sh", "-c", "echo hello; exit 3"))) }()
	}
	for range 20 {
		if got := <-results; got.out != "hello\n" || got.Code != 3 {
			t.Errorf("got %+v", got)
		}
	}
	t.Logf("20 containers at once took %v", time.Since(start))
}
