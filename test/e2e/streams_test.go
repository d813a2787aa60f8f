// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// bulk is how much goes through a pipe in TestBulk: 1 GiB takes half a minute, so that
// only the long run (MICROPOD_E2E_LONG) takes it all.
func bulk() int64 {
	if os.Getenv("MICROPOD_E2E_LONG") != "" {
		return 1 << 30
	}
	return 128 << 20
}

// TestBulk sends much through a container, in at one end and out at the other, and compares sums.
func TestBulk(t *testing.T) {
	t.Parallel()
	size := bulk()
	c := shared.cmd(testContext(t), "run", "--rm", "-i", "busybox", "cat")
	stdin, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	sent := make(chan string, 1)
	go func() {
		sum := sha256.New()
		source := rand.NewChaCha8([32]byte{1})
		_, _ = io.CopyN(io.MultiWriter(stdin, sum), source, size)
		_ = stdin.Close()
		sent <- digest(sum)
	}()
	sum := sha256.New()
	began := time.Now()
	n, err := io.Copy(sum, stdout)
	if err != nil || n != size {
		t.Errorf("%d of %d bytes came back: %v", n, size, err)
	}
	if got, want := digest(sum), <-sent; got != want {
		t.Errorf("bytes changed on their way: sum %s, want %s", got, want)
	}
	if err := c.Wait(); err != nil {
		t.Errorf("run: %v", err)
	}
	t.Logf("%d MiB in and out at %.1f MB/s", size>>20, float64(size)/1e6/time.Since(began).Seconds())
}

func digest(h hash.Hash) string { return hex.EncodeToString(h.Sum(nil)) }

// TestSlowReader: a reader that stops stops the writer, and costs the daemon no memory.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	name := h.name(t)
	const size = 64 << 20
	c := h.cmd(testContext(t), "run", "--rm", "--name", name, "busybox", "dd", "if=/dev/zero", "bs=64k", "count=1024")
	stdout, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReaderSize(stdout, 16).ReadByte(); err != nil {
		t.Fatal(err)
	}
	if stalled := waitForStall(t, h, name); stalled > 8<<20 {
		t.Errorf("the writer wrote %d bytes although nobody reads", stalled)
	}
	if rss := residentBytes(t, h.daemonPID()); rss > 80<<20 {
		t.Errorf("the daemon holds %d MiB while a reader stalls", rss>>20)
	}
	// The container and the daemon answer all the same.
	if got := h.must(t, "exec", name, "echo", "alive"); got != "alive" {
		t.Errorf("exec beside the stalled stream: %q", got)
	}
	rest, err := io.Copy(io.Discard, stdout)
	if err != nil {
		t.Error(err)
	}
	if err := c.Wait(); err != nil {
		t.Errorf("run: %v", err)
	}
	if rest < size-64<<10 {
		t.Errorf("only %d bytes followed of %d", rest, size)
	}
}

// waitForStall returns how much the container's first process has written, once that stood still for a second.
func waitForStall(t *testing.T, h *host, name string) int {
	t.Helper()
	for deadline := time.Now().Add(commandLimit); time.Now().Before(deadline); {
		text := h.must(t, "exec", name, "sh", "-c", "w() { awk '/wchar/{print $2}' /proc/1/io; }; a=$(w); sleep 1; echo $a $(w)")
		var before, after int
		if _, err := fmt.Sscan(text, &before, &after); err == nil && before == after && before > 0 {
			return after
		}
	}
	t.Fatal("the writer never stood still")
	return 0
}

func residentBytes(t *testing.T, pid int) int64 {
	t.Helper()
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/statm")
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(data))
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

// TestSignals: what reaches the command reaches the container.
func TestSignals(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		signal syscall.Signal
		flags  []string
		script string
		code   int
		out    string
	}{
		{syscall.SIGINT, nil, "trap 'echo got int; exit 3' INT; echo ready; while :; do sleep 0.1; done", 3, "ready\ngot int\n"},
		{syscall.SIGTERM, nil, "trap 'echo got term; exit 4' TERM; echo ready; while :; do sleep 0.1; done", 4, "ready\ngot term\n"},
		{syscall.SIGUSR1, nil, "trap 'echo got usr1; exit 5' USR1; echo ready; while :; do sleep 0.1; done", 5, "ready\ngot usr1\n"},
		{syscall.SIGHUP, []string{"--init"}, "echo ready; exec sleep 100", 129, "ready\n"},
	} {
		t.Run(c.signal.String(), func(t *testing.T) {
			t.Parallel()
			cmd := shared.cmd(testContext(t), append(append([]string{"run", "--rm"}, c.flags...), "busybox", "sh", "-c", c.script)...)
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			r := bufio.NewReader(stdout)
			line, err := r.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Process.Signal(c.signal); err != nil {
				t.Fatal(err)
			}
			rest, _ := io.ReadAll(r)
			_ = cmd.Wait()
			if out, code := line+string(rest), cmd.ProcessState.ExitCode(); out != c.out || code != c.code {
				t.Errorf("exit code %d, output %q; want %d, %q", code, out, c.code, c.out)
			}
		})
	}
}

// TestInterruptBeforeStart: Ctrl-C during a start leaves nothing.
func TestInterruptBeforeStart(t *testing.T) {
	t.Parallel()
	name := shared.name(t)
	c := shared.cmd(testContext(t), "run", "--rm", "--name", name, "busybox", "sleep", "1000")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	for r := (result{code: 1}); r.code != 0; { // until the container is known
		r = shared.run(t, "inspect", name)
	}
	if err := c.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait()
	if code := c.ProcessState.ExitCode(); code != 130 && code != 137 {
		t.Errorf("exit code %d, want 130 (or 137 when it had just started)", code)
	}
	if code := shared.run(t, "wait", name).code; code != 0 && shared.run(t, "inspect", name).code == 0 {
		t.Errorf("the container stayed after an interrupted run --rm")
	}
}
