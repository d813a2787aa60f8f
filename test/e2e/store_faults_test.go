// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
)

// TestStoreFaults: the disk below the database refuses to sync, a record rots, the database is no database any more or is
// gone, each with a machine that runs. What a user is told is true, what runs can be removed or was, and nothing is left.
func TestStoreFaults(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	before := h.idleUse(t)
	for _, c := range []struct {
		name string
		test func(t *testing.T, h *host, name string)
	}{
		{"syncing fails", syncingFails},
		{"records rot", recordsRot},
		{"the database rots", databaseRots},
		{"the database is lost", databaseIsLost},
	} {
		t.Run(c.name, func(t *testing.T) {
			name := h.detached(t)
			h.noteMachines()
			c.test(t, h, name)
			h.settled(t, before)
			if out := h.must(t, "run", "--rm", "busybox", "echo", "works"); out != "works" {
				t.Errorf("afterwards a container prints %q", out)
			}
			if r := h.run(t, "system", "check"); r.code != 0 {
				t.Errorf("afterwards: %v", r)
			}
		})
	}
}

func (h *host) database() string { return filepath.Join(h.dataDir(), "state.db") }

// syncingFails: nothing is promised that is not on disk, and what runs goes on.
func syncingFails(t *testing.T, h *host, name string) {
	mend := h.failSyncs(t)
	for _, args := range [][]string{{"run", "-d", "busybox", "sleep", "1000000"}, {"create", "busybox", "true"}} {
		if r := h.run(t, args...); r.code == 0 || !strings.Contains(r.stderr, "input/output error") {
			t.Errorf("want that it fails, and why:\n%v", r)
		}
	}
	if names := h.must(t, "ps", "-a", "--format", "{{.Names}} {{.State}}"); names != name+" running" {
		t.Errorf("containers are %q, want the one of before", names)
	}
	if out := h.must(t, "exec", name, "echo", "alive"); out != "alive" {
		t.Errorf("exec gave %q", out)
	}
	mend()
	h.must(t, "rm", "-f", name)
}

// failSyncs lets no fdatasync and fsync of the daemon's succeed until mend.
func (h *host) failSyncs(t *testing.T) (mend func()) {
	t.Helper()
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("strace is not installed")
	}
	trace := exec.Command("strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:error=EIO", "-p", strconv.Itoa(h.daemonPID()))
	if err := trace.Start(); err != nil {
		t.Fatal(err)
	}
	mend = func() {
		_ = trace.Process.Signal(syscall.SIGTERM)
		_ = trace.Wait()
	}
	status := fmt.Sprintf("/proc/%d/status", h.daemonPID())
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if text, err := os.ReadFile(status); err == nil && bytes.Contains(text, []byte(fmt.Sprintf("TracerPid:\t%d\n", trace.Process.Pid))) {
			return mend
		}
		if time.Now().After(deadline) {
			mend()
			t.Skip("this host does not let strace attach")
		}
	}
}

// recordsRot: the container shows as dead, its machine as unknown, and both go away by force.
func recordsRot(t *testing.T, h *host, name string) {
	if err := h.signalDaemon(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	db, err := bolt.Open(h.database(), 0o600, &bolt.Options{Timeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	rotten := 0
	err = db.Update(func(tx *bolt.Tx) error {
		for _, bucket := range []string{"containers", "machines"} {
			records := map[string][]byte{}
			if err := tx.Bucket([]byte(bucket)).ForEach(func(key, value []byte) error {
				records[string(key)] = bytes.Replace(value, []byte(`"sum":`), []byte(`"sum":1`), 1)
				return nil
			}); err != nil {
				return err
			}
			for key, value := range records {
				if err := tx.Bucket([]byte(bucket)).Put([]byte(key), value); err != nil {
					return err
				}
				rotten++
			}
		}
		return nil
	})
	if err != nil || rotten != 2 {
		t.Fatalf("%d records rot: %v", rotten, err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	shown := strings.Fields(h.must(t, "ps", "-a", "--format", "{{.ID}} {{.State}}"))
	if len(shown) != 2 || shown[1] != "dead" {
		t.Fatalf("ps shows %q, want a dead container", shown)
	}
	if r := h.run(t, "system", "check"); r.code == 0 || !strings.Contains(r.stdout, "cannot be read") {
		t.Errorf("the check must tell:\n%v", r)
	}
	h.must(t, "rm", "-f", shown[0])
}

// databaseRots: the daemon does not start on it, says what is wrong, and touches neither the file nor what runs.
func databaseRots(t *testing.T, h *host, name string) {
	if err := h.signalDaemon(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(h.database())
	if err != nil {
		t.Fatal(err)
	}
	bad := bytes.Repeat([]byte("rot "), len(good)/4)
	if err := os.WriteFile(h.database(), bad, 0o600); err != nil {
		t.Fatal(err)
	}
	if r := h.run(t, "ps"); r.code == 0 || !strings.Contains(r.stderr, "state.db") {
		t.Errorf("want that the file is named:\n%v", r)
	}
	if now, err := os.ReadFile(h.database()); err != nil || !bytes.Equal(now, bad) {
		t.Errorf("the file was changed (%v)", err)
	}
	if len(h.vmms()) != 1 {
		t.Errorf("the machine's VMM was ended")
	}
	if err := os.WriteFile(h.database(), good, 0o600); err != nil {
		t.Fatal(err)
	}
	if out := h.must(t, "exec", name, "echo", "alive"); out != "alive" {
		t.Errorf("with the file back exec gave %q", out)
	}
	h.must(t, "rm", "-f", name)
}

// databaseIsLost: what nobody knows any more is removed from the host.
func databaseIsLost(t *testing.T, h *host, _ string) {
	if err := h.signalDaemon(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(h.database()); err != nil {
		t.Fatal(err)
	}
	if names := h.must(t, "ps", "-aq"); names != "" {
		t.Errorf("containers are %q", names)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil || bytes.Contains(mounts, []byte(h.runDir())) {
		t.Errorf("after the start there are mounts in %s (%v):\n%s", h.runDir(), err, clip(string(mounts)))
	}
	links, _ := filepath.Glob("/sys/class/net/*/ifalias")
	for _, l := range links {
		if alias, err := os.ReadFile(l); err == nil && strings.HasPrefix(string(alias), "micropod "+networkTag(h.dataDir())+" network") {
			t.Errorf("a bridge is left: %s", alias)
		}
	}
}
