// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestBadInput: a clear error that names the mend, the right code, nothing left over.
func TestBadInput(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		args   []string
		code   int
		stderr []string // each in the message, without regard to case
	}{
		{"unknown image", []string{"run", "--rm", "localhost:1/no/such:image", "true"}, 125, []string{"no/such"}},
		{"malformed image", []string{"run", "--rm", "UPPER CASE", "true"}, 125, []string{"UPPER CASE"}},
		{"never pulled", []string{"run", "--rm", "--pull", "never", "absent", "true"}, 125, []string{"absent"}},
		{"wrong platform", []string{"run", "--rm", "--platform", "linux/s390x", "--pull", "never", "busybox", "true"}, 125, []string{"s390x"}},
		{"working directory is a file", []string{"run", "--rm", "-w", "/etc/passwd", "busybox", "true"}, 125, []string{"/etc/passwd", "not a directory"}},
		{"memory too small", []string{"run", "--rm", "-m", "1m", "busybox", "true"}, 125, []string{"memory"}},
		{"memory beyond the host", []string{"run", "--rm", "-m", "900t", "busybox", "true"}, 125, []string{"memory"}},
		{"more CPUs than the host", []string{"run", "--rm", "--vcpus", "900", "busybox", "true"}, 125, []string{"cpu"}},
		{"missing kernel", []string{"run", "--rm", "--kernel", "/no/kernel", "busybox", "true"}, 125, []string{"/no/kernel"}},
		{"garbage kernel", []string{"run", "--rm", "--kernel", "/etc/passwd", "busybox", "true"}, 125, []string{"/etc/passwd"}},
		{"unknown engine", []string{"run", "--rm", "--engine", "warp", "busybox", "true"}, 125, []string{"warp"}},
		{"unknown flag", []string{"run", "--no-such-flag", "busybox"}, 125, []string{"no-such-flag", "--help"}},
		{"no image", []string{"run"}, 125, []string{"needs an image"}},
		{"unknown capability", []string{"run", "--rm", "--cap-add", "FLY", "busybox", "true"}, 125, []string{"FLY"}},
		{"bad size", []string{"run", "-m", "much", "busybox"}, 125, []string{"much", "512m"}},
		{"ports", []string{"run", "-p", "80:http", "busybox"}, 125, []string{"80:http"}},
		{"volumes", []string{"run", "-v", "/a:/b", "busybox"}, 125, []string{"host directories"}},
		{"terminal without one", []string{"run", "--rm", "-it", "busybox", "sh"}, 125, []string{"not a TTY"}},
		{"unknown container", []string{"start", "nobody"}, 1, []string{"nobody"}},
		{"unknown verb", []string{"rnu"}, 1, []string{"run"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := shared.runIn(t, "", c.args...)
			if r.code != c.code {
				t.Errorf("want exit code %d:\n%v", c.code, r)
			}
			for _, want := range c.stderr {
				if !strings.Contains(strings.ToLower(r.stderr), strings.ToLower(want)) {
					t.Errorf("the message must hold %q:\n%v", want, r)
				}
			}
			if r.stdout != "" {
				t.Errorf("nothing belongs on standard output:\n%v", r)
			}
		})
	}
}

// TestHostLacks runs daemons that miss what they need: each says so, with the mend.
func TestHostLacks(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, config, want, mend string }{
		{"no qemu", `qemu = "/no/qemu"`, "/no/qemu", "qemu-system-x86"},
		{"no kernel", `kernel = "/no/kernel"`, "/no/kernel", "linux-image"},
		{"no agent", `agent = "/no/agent"`, "/no/agent", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			if err := h.restartWith(c.config); err != nil {
				t.Fatal(err)
			}
			r := h.run(t, "run", "--rm", "busybox", "true")
			if r.code != 125 || !strings.Contains(r.stderr, c.want) || !strings.Contains(r.stderr, c.mend) {
				t.Errorf("want 125, the path and how to mend it:\n%v", r)
			}
			if left := h.must(t, "ps", "-aq"); left != "" {
				t.Errorf("run --rm left %s", left)
			}
			r = h.run(t, "doctor")
			if r.code != 1 || !strings.Contains(r.stdout, c.want) {
				t.Errorf("doctor must fail and name it:\n%v", r)
			}
		})
	}
}

// TestQEMUDiesAtStart: a VMM that ends at once is told with its last words, and nothing stays.
func TestQEMUDiesAtStart(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	reachable, err := os.MkdirTemp("", "micropod-qemu-") // by the uid of a machine
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(reachable)
	broken := filepath.Join(reachable, "qemu-broken")
	script := "#!/bin/sh\ncase \"$*\" in *--version*|*-version*) echo 'QEMU emulator version 7.2.22';; *) echo 'the disk is on fire' >&2; exit 1;; esac\n"
	if err := os.WriteFile(broken, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(reachable, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := h.restartWith(`qemu = "` + broken + `"`); err != nil {
		t.Fatal(err)
	}
	r := h.run(t, "run", "--rm", "busybox", "true")
	if r.code != 125 || !strings.Contains(r.stderr, "the disk is on fire") {
		t.Errorf("want 125 and QEMU's last words:\n%v", r)
	}
	if left := h.must(t, "ps", "-aq"); left != "" {
		t.Errorf("run --rm left %s", left)
	}
}
