// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const probeArgument = "rootfs-probe"

// probes are what a confined process tries; each must fail.
var probes = []struct {
	name string
	try  func() error
}{
	{"open", func() error { _, err := os.Open("/"); return err }},
	{"create", func() error { _, err := os.Create("x"); return err }},
	{"connect", func() error { _, err := net.Dial("tcp", "127.0.0.1:1"); return err }},
	{"execute", func() error { return syscall.Exec("/bin/true", []string{"true"}, nil) }},
	{"signal others", func() error { return unix.Kill(unix.Getppid(), 0) }},
	{"become root", func() error { return syscall.Setresuid(0, 0, 0) }},
	{"mount", func() error { return unix.Mount("tmpfs", "/", "tmpfs", 0, "") }},
	{"unshare", func() error { return unix.Unshare(unix.CLONE_NEWUSER) }},
}

// probeMain is the process of TestConfine. It tries everything on several threads.
func probeMain() {
	if err := confine(Limits{}.orDefault()); err != nil {
		fmt.Println("confine:", err)
		syscall.Exit(1)
	}
	for range 4 {
		done := make(chan struct{})
		go func() {
			defer close(done)
			for _, p := range probes {
				if err := p.try(); err == nil {
					fmt.Println("could", p.name)
				}
			}
		}()
		<-done
	}
	fmt.Println("done")
	os.Stdin.Read(make([]byte, 1)) // until the test has looked at the threads
	syscall.Exit(0)
}

func TestConfine(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("/proc/self/exe", probeArgument)
	cmd.SysProcAttr = (&conversion{}).command(context.Background(), nil, nil).SysProcAttr
	cmd.SysProcAttr.Pdeathsig = 0
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var said []string
	for lines := bufio.NewScanner(stdout); (len(said) == 0 || said[len(said)-1] != "done") && lines.Scan(); {
		said = append(said, lines.Text())
	}
	checkThreads(t, cmd.Process.Pid)
	stdin.Close()
	if err := cmd.Wait(); err != nil || len(said) != 1 {
		t.Errorf("a confined process: %v, want it to end well and only say done, got %q", err, said)
	}
}

// checkThreads looks from outside at every thread of a confined process.
func checkThreads(t *testing.T, pid int) {
	t.Helper()
	paths, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(paths) < 2 {
		t.Fatalf("threads of the probe: got %q, %v; want at least two", paths, err)
	}
	for _, path := range paths {
		status, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"NoNewPrivs:\t1\n", "Seccomp:\t2\n", "Uid:\t65534\t65534\t65534\t65534\n",
			"Gid:\t65534\t65534\t65534\t65534\n", "Groups:\t \n", "CapEff:\t0000000000000000\n", "CapPrm:\t0000000000000000\n"} {
			if !strings.Contains(string(status), want) {
				t.Errorf("%s: want %q in:\n%s", path, want, status)
			}
		}
	}
}

func TestConvertIsolatedIsConvert(t *testing.T) {
	t.Parallel()
	layers := store(t, gzipped(t, makeTar(t, sizes()...)), zstdCompressed(t, makeTar(t, many(500)...)))
	_, want := convert(t, layers)
	out := filepath.Join(t.TempDir(), "out.erofs")
	var done, total int64
	got, err := ConvertIsolated(context.Background(), layers, out, Limits{}, func(d, n int64) { done, total = d, n })
	if err != nil {
		t.Fatalf("ConvertIsolated: %v", err)
	}
	if got != want {
		t.Errorf("got %+v, want what Convert gives: %+v", got, want)
	}
	if done == 0 || done != total {
		t.Errorf("progress ended at %d of %d bytes", done, total)
	}
	if info, err := os.Stat(out); err != nil || info.Size() != got.Size {
		t.Errorf("image: %v, %v; want %d bytes", info, err, got.Size)
	}
}

func TestConvertIsolatedErrors(t *testing.T) {
	t.Parallel()
	good := makeTar(t, root(), reg("a", "1"))
	for _, c := range []struct {
		name   string
		layers []Layer
		limits Limits
		want   error
		layer  int
	}{
		{"corrupt", store(t, good, []byte(strings.Repeat("x", 600))), Limits{}, ErrCorrupt, 1},
		{"limit", store(t, good), Limits{Bytes: 100}, ErrLimit, 0},
		{"memory", store(t, makeTar(t, many(40000)...)), Limits{Memory: 24 << 20}, ErrLimit, -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			_, err := ConvertIsolated(context.Background(), c.layers, filepath.Join(dir, "out"), c.limits, nil)
			if !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			var layer *LayerError
			if errors.As(err, &layer) != (c.layer >= 0) || layer != nil && layer.Index != c.layer {
				t.Errorf("got layer %+v, want %d", layer, c.layer)
			}
			mustBeEmpty(t, dir)
		})
	}
}

// A conversion that waits for its end of time is ended by its context.
func TestConvertIsolatedCancelled(t *testing.T) {
	t.Parallel()
	layers := store(t, gzipped(t, makeTar(t, root(), item{Header: reg("zeroes", "").Header, body: string(make([]byte, 64<<20))})))
	ctx, cancel := context.WithCancel(context.Background())
	dir := t.TempDir()
	started := time.Now()
	_, err := ConvertIsolated(ctx, layers, filepath.Join(dir, "out"), Limits{}, func(int64, int64) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v after %v, want %v", err, time.Since(started), context.Canceled)
	}
	mustBeEmpty(t, dir)
}

func TestListenDistrustsTheChild(t *testing.T) {
	t.Parallel()
	c := &conversion{sizes: []int64{10}}
	for _, in := range []string{"nonsense\n", strings.Repeat("x", maxMessage+1), `{"Done":"x"}` + "\n"} {
		if last, err := c.listen(strings.NewReader(in)); err == nil {
			t.Errorf("%.20q: got %+v, want an error", in, last)
		}
	}
	told := int64(0)
	c.progress = func(done, _ int64) { told = done }
	if _, err := c.listen(strings.NewReader(`{"Done":5}` + "\n" + `{"Done":11}` + "\n" + `{"Done":-1}` + "\n")); err != nil || told != 5 {
		t.Errorf("progress beyond the total: got %d, %v; want 5", told, err)
	}
	for _, r := range []Result{{}, {Digest: "sha256:../..", Size: 1, Entries: 1}} {
		if err := r.check(1); !errors.Is(err, ErrConverter) {
			t.Errorf("%+v: got %v, want %v", r, err, ErrConverter)
		}
	}
}

func mustBeEmpty(t *testing.T, dir string) {
	t.Helper()
	names, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var left bytes.Buffer
	for _, n := range names {
		fmt.Fprintf(&left, " %s", n.Name())
	}
	if left.Len() > 0 {
		t.Errorf("left behind:%s", left.String())
	}
}
