// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/test/kvmhost"
)

// commandLimit bounds one command line. A machine boots in 2 to 5 s in software
// emulation, several at once take their turns.
const commandLimit = 3 * time.Minute

// host is a micropod of its own: folders, daemon, images.
type host struct {
	dir    string
	binary string
	extra  []string // of the environment, of commands and the daemon they start
	names  atomic.Int64

	mu       sync.Mutex
	machines []string // ids seen by noteMachines
}

// newHost is a host for one test, closed and checked for leaks at its end.
func newHost(t *testing.T) *host {
	t.Helper()
	dir, err := os.MkdirTemp("", "micropod-e2e-") // short: sockets' paths are bounded
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	h, err := openHost(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

// openHost makes a host in dir and imports the images; the daemon is started by the first command.
func openHost(dir string) (*host, error) {
	micropod, err := binary("micropod")
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o755); err != nil { // each VMM runs under a uid of its own
		return nil, err
	}
	h := &host{dir: dir, binary: micropod}
	archive, err := busyboxArchive()
	if err != nil {
		return nil, fmt.Errorf("making the test image: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), commandLimit)
	defer cancel()
	if r := h.command(ctx, nil, "image", "import", archive); r.code != 0 {
		return nil, fmt.Errorf("importing the test image: %v", r)
	}
	return h, nil
}

func (h *host) dataDir() string { return filepath.Join(h.dir, "data") }
func (h *host) runDir() string  { return filepath.Join(h.dir, "run") }

// env is the environment of commands: this host's folders and nothing of the caller's own settings.
func (h *host) env() []string {
	var env []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "MICROPOD_") && !strings.HasPrefix(e, "NO_COLOR=") && !strings.HasPrefix(e, "GOCOVERDIR=") {
			env = append(env, e)
		}
	}
	if dir := os.Getenv("MICROPOD_COVERDIR"); dir != "" { // go test has its own use for GOCOVERDIR
		env = append(env, "GOCOVERDIR="+dir)
	}
	return append(append(env, "MICROPOD_DATA_DIR="+h.dataDir(), "MICROPOD_RUN_DIR="+h.runDir(), "MICROPOD_CONFIG="+h.configFile()), h.extra...)
}

// engineSetting leaves no choice in the KVM host made in software, which may be too slow for the probe of KVM.
func engineSetting() []byte {
	if kvmhost.Inside() {
		return []byte("engine = \"firecracker\"\n")
	}
	return nil
}

// configFile is an empty file unless a test writes it: the machine's own configuration must not matter.
func (h *host) configFile() string {
	path := filepath.Join(h.dir, "config.toml")
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		_ = os.WriteFile(path, engineSetting(), 0o600)
	}
	return path
}

// result is how a command ended.
type result struct {
	args           []string
	stdout, stderr string
	code           int
	took           time.Duration
}

func (r result) String() string {
	return fmt.Sprintf("micropod %s\nexit code %d after %s\nstdout: %s\nstderr: %s",
		strings.Join(r.args, " "), r.code, r.took.Round(time.Millisecond), clip(r.stdout), clip(r.stderr))
}

func clip(s string) string {
	const most = 4 << 10
	if len(s) <= most {
		return s
	}
	return s[:most/2] + "\n[...]\n" + s[len(s)-most/2:]
}

// command runs micropod to its end. Code -1 means that it could not be run.
func (h *host) command(ctx context.Context, stdin []byte, args ...string) result {
	c := h.cmd(ctx, args...)
	if stdin != nil {
		c.Stdin = bytes.NewReader(stdin)
	}
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	began := time.Now()
	err := c.Run()
	r := result{args: args, stdout: stdout.String(), stderr: stderr.String(), took: time.Since(began)}
	var ended *exec.ExitError
	switch {
	case errors.As(err, &ended):
		r.code = ended.ExitCode()
	case err != nil:
		r.code, r.stderr = -1, r.stderr+err.Error()
	}
	return r
}

// cmd is a command not yet started.
func (h *host) cmd(ctx context.Context, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, h.binary, args...)
	c.Env = h.env()
	c.WaitDelay = 10 * time.Second
	return c
}

// run is command within a test.
func (h *host) run(t *testing.T, args ...string) result {
	t.Helper()
	return h.command(testContext(t), nil, args...)
}

// runIn is run with standard input.
func (h *host) runIn(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	return h.command(testContext(t), []byte(stdin), args...)
}

// must is run that succeeds; it returns standard output without the last newline.
func (h *host) must(t *testing.T, args ...string) string {
	t.Helper()
	r := h.run(t, args...)
	if r.code != 0 {
		t.Fatalf("want success:\n%v", r)
	}
	return strings.TrimSuffix(r.stdout, "\n")
}

// name is a container's name of this test alone, removed at its end with all that it holds.
func (h *host) name(t *testing.T) string {
	t.Helper()
	name := "t" + strconv.FormatInt(h.names.Add(1), 10)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), commandLimit)
		defer cancel()
		h.command(ctx, nil, "rm", "-f", name)
	})
	return name
}

// detached starts a container that stays up, and returns its name.
func (h *host) detached(t *testing.T, flags ...string) string {
	t.Helper()
	name := h.name(t)
	args := append([]string{"run", "-d", "--name", name}, flags...)
	h.must(t, append(args, "busybox", "sleep", "1000000")...)
	return name
}

// await waits until a shell's condition holds in a container, a tenth of a second between two looks.
func (h *host) await(t *testing.T, name, condition string) {
	t.Helper()
	h.must(t, "exec", name, "sh", "-c", "i=0; while ! { "+condition+"; }; do i=$((i+1)); [ $i -lt 600 ] || exit 1; sleep 0.1; done")
}

// daemonPID is the pid of this host's daemon, 0 when it does not run.
func (h *host) daemonPID() int {
	data, err := os.ReadFile(filepath.Join(h.runDir(), "micropodd.pid"))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return 0
	}
	return pid
}

// signalDaemon sends the daemon a signal and waits until it is gone.
func (h *host) signalDaemon(s syscall.Signal) error {
	pid := h.daemonPID()
	if pid == 0 {
		return nil
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("opening the daemon's process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, s, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signalling the daemon: %w", err)
	}
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(poll, 30_000)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return fmt.Errorf("the daemon (pid %d) does not end by %v within 30 s: %v", pid, s, err)
		}
		return nil
	}
}

// close removes all containers and machines, stops the daemon and says what is left that should not be.
func (h *host) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), commandLimit)
	defer cancel()
	var errs []error
	for _, list := range [][]string{{"ps", "-aq", "--no-trunc"}, {"vm", "ls", "-q"}} {
		r := h.command(ctx, nil, list...)
		if r.code != 0 {
			errs = append(errs, fmt.Errorf("listing what is left: %v", r))
			continue
		}
		remove := []string{"rm", "-f"}
		if list[0] == "vm" {
			remove = []string{"vm", "rm", "-f"}
		}
		if ids := strings.Fields(r.stdout); len(ids) > 0 {
			if r := h.command(ctx, nil, append(remove, ids...)...); r.code != 0 {
				errs = append(errs, fmt.Errorf("removing what is left: %v", r))
			}
		}
	}
	errs = append(errs, h.signalDaemon(syscall.SIGTERM)) // it leaves nothing that the next one would have to remove
	return errors.Join(append(errs, h.leaks(), h.cgroupLeaks())...)
}

// leaks tells of processes, mounts and folders of machines that outlived them.
func (h *host) leaks() error {
	var errs []error
	for _, p := range processesNaming(h.dir) {
		errs = append(errs, fmt.Errorf("process left over: %s", p))
	}
	for _, pid := range h.vmms() {
		errs = append(errs, fmt.Errorf("VMM left over: process %d", pid))
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	for _, line := range strings.Split(string(mounts), "\n") {
		if strings.Contains(line, h.dir) {
			errs = append(errs, fmt.Errorf("mount left over: %s", line))
		}
	}
	for _, dir := range []string{filepath.Join(h.dataDir(), "disks"), filepath.Join(h.runDir(), "machines"), filepath.Join(h.dataDir(), "containers")} {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			errs = append(errs, fmt.Errorf("left over: %s", filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}

// processesNaming lists the processes with text in their command line, this one aside.
func processesNaming(text string) []string {
	var found []string
	dirs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range dirs {
		data, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(data, []byte(text)) || filepath.Dir(path) == "/proc/"+strconv.Itoa(os.Getpid()) {
			continue
		}
		found = append(found, filepath.Base(filepath.Dir(path))+" "+clip(strings.ReplaceAll(string(data), "\x00", " ")))
	}
	return found
}

// vmms are the pids of this host's VMMs: processes that hold files in its folders open, be those removed or not.
func (h *host) vmms() (pids []int) {
	names, _ := filepath.Glob("/proc/[0-9]*/comm")
	for _, path := range names {
		comm, err := os.ReadFile(path)
		pid, bad := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err == nil && bad == nil && strings.HasPrefix(string(comm), "qemu") && h.heldBy(pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func (h *host) heldBy(pid int) bool {
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	return slices.ContainsFunc(links, func(l string) bool {
		target, err := os.Readlink(l)
		return err == nil && strings.HasPrefix(target, h.dir+"/")
	})
}
