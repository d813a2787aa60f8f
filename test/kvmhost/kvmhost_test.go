// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package kvmhost

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	code := Main(m)
	if code == 0 && !Inside() {
		if err := goleak.Find(); err != nil {
			os.Stderr.WriteString(err.Error())
			code = 1
		}
	}
	os.Exit(code)
}

// TestPrograms: what tests rely on is there and works.
func TestPrograms(t *testing.T) {
	if !Enter(t, Files{"/tmp/given": "kvmhost.go"}, "GIVEN=too") {
		return
	}
	kvm, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	kvm.Close()
	for program, want := range map[string]string{"firecracker": "Firecracker v1.12.1", "jailer": "Jailer v1.12.1"} {
		out, err := exec.Command(program, "--version").CombinedOutput()
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("%s --version: %v, %s; want %s", program, err, out, want)
		}
	}
	if _, err := os.Stat("/tmp/given"); err != nil || os.Getenv("GIVEN") != "too" {
		t.Errorf("file given: %v, variable given: %q", err, os.Getenv("GIVEN"))
	}
	controllers, err := os.ReadFile("/sys/fs/cgroup/cgroup.subtree_control")
	if err != nil || !strings.Contains(string(controllers), "memory") {
		t.Errorf("controllers %s (%v), want memory among them", controllers, err)
	}
}

// TestRun: exit codes, output, input, files both ways.
func TestRun(t *testing.T) {
	if testing.Short() || Inside() {
		t.Skip("is the test's side")
	}
	h, ctx := sharedHost(t), t.Context()
	var out, errs bytes.Buffer
	code, err := h.Run(ctx, Command{Args: []string{"/bin/sh", "-c", "cat; echo $A; echo err >&2; exit 7"}, Env: []string{"A=a"}, Stdin: strings.NewReader("in "), Stdout: &out, Stderr: &errs})
	if err != nil || code != 7 || out.String() != "in a\n" || errs.String() != "err\n" {
		t.Errorf("code %d, %v, output %q, errors %q", code, err, out.String(), errs.String())
	}
	if code, err := h.Run(ctx, Command{Args: []string{"/bin/sh", "-c", "kill -9 $$"}}); err != nil || code != 128+9 {
		t.Errorf("killed: code %d, %v", code, err)
	}
	if _, err := h.Run(ctx, Command{Args: []string{"/bin/nothing"}}); err == nil {
		t.Error("a missing program ran")
	}
	out.Reset()
	if code, err := h.Run(ctx, Command{Args: []string{"/bin/sh", "-c", "stty size"}, TTY: true, Rows: 12, Columns: 34, Stdout: &out}); err != nil || code != 0 || strings.TrimSpace(out.String()) != "12 34" {
		t.Errorf("on a terminal: code %d, %v, %q", code, err, out.String())
	}
	dir := t.TempDir()
	big := filepath.Join(dir, "big")
	if err := os.WriteFile(big, bytes.Repeat([]byte("0123456789abcdef"), 1<<18), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := h.Put(ctx, Files{"/tmp/there/a/big": big}); err != nil {
		t.Fatal(err)
	}
	if err := h.Get(ctx, "/tmp/there", filepath.Join(dir, "back")); err != nil {
		t.Fatal(err)
	}
	sent, err1 := os.ReadFile(big)
	back, err2 := os.ReadFile(filepath.Join(dir, "back/a/big"))
	if err1 != nil || err2 != nil || !bytes.Equal(sent, back) {
		t.Errorf("%d bytes came back of %d (%v, %v)", len(back), len(sent), err1, err2)
	}
	if err := h.Put(ctx, Files{"/tmp/x": dir + "/missing"}); err == nil {
		t.Error("a missing file was put")
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := h.Run(cancelled, Command{Args: []string{"/bin/sleep", "60"}}); err == nil {
		t.Error("a cancelled run gave no error")
	}
}

func TestPattern(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, picked, want string }{
		{"TestA", "", "^TestA$"},
		{"TestA", "Test", "^TestA$"},
		{"TestA", "A/B/C", "^TestA$/B/C"},
		{"TestA/B", "A/B/C", "^TestA$/^B$/C"},
	} {
		if got := pattern(test.name, test.picked); got != test.want {
			t.Errorf("pattern(%q, %q) = %q, want %q", test.name, test.picked, got, test.want)
		}
	}
}
