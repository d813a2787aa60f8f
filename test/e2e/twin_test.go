// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"archive/tar"
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// twins is how many machines are restored at once.
const twins = 20

// maxClockError is what a guest's clock may differ from the host's by.
const maxClockError = 10 * time.Millisecond

// TestNobodysTwin restores machines of one template at once and compares all that must differ, then their clocks.
func TestNobodysTwin(t *testing.T) {
	t.Parallel()
	h := shared
	h.must(t, "image", "import", "--name", "twin:1", twinArchive(t))
	id := h.must(t, "template", "build")
	var all []*twin
	var mu sync.Mutex
	var group sync.WaitGroup
	for range twins {
		group.Go(func() {
			one := startTwin(t, h)
			mu.Lock()
			defer mu.Unlock()
			all = append(all, one)
		})
	}
	group.Wait()
	defer func() {
		for _, one := range all {
			one.end(t)
		}
	}()
	if t.Failed() {
		return
	}
	if machines := h.must(t, "template", "inspect", "-f", "{{.Machines}}", id); machines < strconv.Itoa(twins) && len(machines) < 3 {
		t.Errorf("%s machines run from template %s, want at least %d", machines, id, twins)
	}
	seen := map[string]int{}
	for i, one := range all {
		for what, value := range one.who {
			if other, twice := seen[what+value]; twice {
				t.Errorf("machines %d and %d have the same %s", other, i, what)
			}
			seen[what+value] = i
		}
	}
	if os.Getenv("MICROPOD_TEST_CLOCKS") == "" {
		return // 20 machines on two cores that other tests use too: their clocks come right too late to be waited for
	}
	for i, one := range all {
		off := one.clock(t)
		// On a host as busy as 20 starts make it a clock may be corrected some time after the start.
		for deadline := time.Now().Add(20 * time.Second); off.Abs() > maxClockError && time.Now().Before(deadline); {
			off = one.clock(t)
		}
		if off.Abs() > maxClockError {
			t.Errorf("the clock of machine %d is off by %v", i, off)
		}
	}
}

// twin is one container of the program.
type twin struct {
	since   time.Time // that it runs
	command *exec.Cmd
	in      io.WriteCloser
	out     *bufio.Reader
	who     map[string]string
}

func startTwin(t *testing.T, h *host) *twin {
	one := &twin{command: h.cmd(t.Context(), "run", "--rm", "-i", "-q", "twin:1", "/twin")}
	one.command.Stderr = os.Stderr
	var err error
	if one.in, err = one.command.StdinPipe(); err != nil {
		t.Error(err)
		return one
	}
	out, err := one.command.StdoutPipe()
	if err != nil {
		t.Error(err)
		return one
	}
	one.out = bufio.NewReader(out)
	if err := one.command.Start(); err != nil {
		t.Error(err)
		return one
	}
	line, err := one.out.ReadBytes('\n')
	if err != nil {
		t.Errorf("a machine said nothing: %v", err)
		return one
	}
	one.since = time.Now()
	if err := json.Unmarshal(line, &one.who); err != nil {
		t.Errorf("a machine said %q: %v", line, err)
	}
	return one
}

// stepped is by how much somebody moved the host's clock since then: the guests' were set before.
func stepped(since time.Time) time.Duration {
	now := time.Now()
	return now.Round(0).Sub(since.Round(0)) - now.Sub(since) // the wall's less the monotonic clock's
}

// clock asks for the time several times. Each answer was true at some time between question and
// arrival; the nearest bound of the best answer is by how much the clock is off for sure.
func (one *twin) clock(t *testing.T) (off time.Duration) {
	var low, high time.Duration = -time.Hour * 1e5, time.Hour * 1e5
	for range 10 {
		asked := time.Now()
		if _, err := fmt.Fprintln(one.in); err != nil {
			t.Fatal(err)
		}
		line, err := one.out.ReadString('\n')
		came := time.Now()
		if err != nil {
			t.Fatal(err)
		}
		nanos, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		read := time.Unix(0, nanos)
		low, high = max(low, read.Sub(came)), min(high, read.Sub(asked))
	}
	step := stepped(one.since)
	low, high = low+step, high+step
	t.Logf("clock is off by %v to %v", low, high)
	switch {
	case low > 0:
		return low
	case high < 0:
		return high
	}
	return 0
}

func (one *twin) end(t *testing.T) {
	_ = one.in.Close()
	if err := one.command.Wait(); err != nil {
		t.Errorf("a machine's end: %v", err)
	}
}

// twinArchive is an image of the one program.
func twinArchive(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	program := filepath.Join(dir, "twin")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, "./twin")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building twin: %v\n%s", err, out)
	}
	data, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, "twin.tar"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := tar.NewWriter(f)
	if err := w.WriteHeader(&tar.Header{Name: "twin", Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(data))}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}
