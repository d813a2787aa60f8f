// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// host is a micropod of its own in the KVM host.
type host struct{ dir string }

func (h *host) micropod(ctx context.Context, args ...string) (string, time.Duration, error) {
	c := exec.CommandContext(ctx, "micropod", args...)
	c.Env = append(os.Environ(), "MICROPOD_DATA_DIR="+h.dir+"/data", "MICROPOD_RUN_DIR="+h.dir+"/run", "MICROPOD_CONFIG="+h.dir+"/config.toml", "MICROPOD_DEFAULT_NETWORK=none")
	began := time.Now()
	out, err := c.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("micropod %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out)), time.Since(began), err
}

// commands measures whole command lines.
func commands(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "h")
	if err != nil {
		return err
	}
	h := &host{dir}
	if err := os.Chmod(dir, 0o755); err != nil { // each VMM runs under a uid of its own
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "config.toml"), []byte("engine = \"firecracker\"\n"), 0o600); err != nil {
		return err
	}
	defer h.end()
	if _, _, err := h.micropod(ctx, "image", "import", "/tmp/busybox.tar"); err != nil {
		return err
	}
	var cold, warm []float64
	for i := range 3 {
		// An argument of its own keeps the machine from being restored.
		_, took, err := h.micropod(ctx, "run", "--rm", "--kernel-arg", "bench", "busybox", "true")
		if err != nil {
			return err
		}
		if i > 0 { // the first finds the kernel and makes the initramfs
			cold = append(cold, milliseconds(took))
		}
	}
	for i := range 3 {
		_, took, err := h.micropod(ctx, "run", "--rm", "busybox", "true")
		if err != nil {
			return err
		}
		if i > 0 { // it made the template
			warm = append(warm, milliseconds(took))
		}
	}
	print("run --rm busybox true, cold", "ms", cold, 0, "the boot above, the container's own start, and all removed")
	print("run --rm busybox true, base template", "ms", warm, 0, "command line to its exit")
	return h.many(ctx)
}

// many measures what further machines cost the daemon, and a stop.
func (h *host) many(ctx context.Context) error {
	const machines = 3
	text, err := os.ReadFile(filepath.Join(h.dir, "run", "micropodd.pid"))
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return err
	}
	before, err := residentOf(pid)
	if err != nil {
		return err
	}
	var stops []float64
	var names []string
	for i := range machines {
		name := fmt.Sprintf("m%d", i)
		if _, _, err := h.micropod(ctx, "run", "-d", "--name", name, "busybox", "sleep", "1000000"); err != nil {
			return err
		}
		names = append(names, name)
	}
	after, err := residentOf(pid)
	if err != nil {
		return err
	}
	for _, name := range names {
		_, took, err := h.micropod(ctx, "stop", "-t", "0", name)
		if err != nil {
			return err
		}
		stops = append(stops, milliseconds(took))
	}
	print("daemon, more for each Firecracker machine", "MB", []float64{float64(after-before) / machines / 1e6}, 2, fmt.Sprintf("%d machines run", machines))
	print("stop -t 0 of a Firecracker machine", "ms", stops, 0, "command line to its exit")
	return nil
}

// end removes all machines and ends the daemon. The KVM host ends after.
func (h *host) end() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if ids, _, err := h.micropod(ctx, "ps", "-aq"); err == nil && ids != "" {
		_, _, _ = h.micropod(ctx, append([]string{"rm", "-f"}, strings.Fields(ids)...)...)
	}
	text, err := os.ReadFile(filepath.Join(h.dir, "run", "micropodd.pid"))
	if err != nil {
		return
	}
	if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
		_ = syscall.Kill(pid, syscall.SIGTERM)
	}
}

// residentOf is a process's resident memory, in bytes (proc(5), /proc/PID/statm).
func residentOf(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	var size, resident int64
	_, err = fmt.Sscan(string(text), &size, &resident)
	return resident * int64(os.Getpagesize()), err
}
