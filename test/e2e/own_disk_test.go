// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// ownInit is the init of a disk of the user's own: it proves where it is, and ends when it is asked to.
const ownInit = `#!/bin/busybox sh
echo "own init is process $$ on $(/bin/busybox grep -c ' / ext4 ' /proc/mounts) ext4"
/bin/busybox cat /proc/sys/kernel/hostname > /ran
trap 'echo "own init goes"; echo bye > /bye; exit 0' TERM USR2
while :; do /bin/busybox sleep 0.1; done
`

// ownDisk makes an ext4 file system with busybox and the init above.
func ownDisk(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for _, dir := range []string{"bin", "sbin", "proc", "sys", "dev"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	program, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"bin/busybox": program, "sbin/init": []byte(ownInit)} {
		if err := os.WriteFile(filepath.Join(root, name), content, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	disk := filepath.Join(t.TempDir(), "disk.ext4")
	if out, err := exec.Command("mkfs.ext4", "-q", "-d", root, disk, "16M").CombinedOutput(); err != nil {
		t.Fatalf("making the disk: %v: %s", err, out)
	}
	return disk
}

// onDisk reads a file of a disk that no machine uses.
func onDisk(t *testing.T, disk, path string) string {
	t.Helper()
	out, err := exec.Command("debugfs", "-R", "cat "+path, disk).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// TestOwnDisk: a machine from a disk of the user's own, without an image, limited, with a second one.
func TestOwnDisk(t *testing.T) {
	t.Parallel()
	h, disk := shared, ownDisk(t)
	data := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(data, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(t.TempDir(), "vmm.log")
	id := h.must(t, "vm", "create", "--memory", "256m", "--name", "own", "--rootfs", disk, "--drive", data+":ro", "--disk-bps", "50m", "--vmm-log", log)
	t.Cleanup(func() { h.command(t.Context(), nil, "vm", "rm", "-f", id) })
	console := ""
	for deadline := time.Now().Add(time.Minute); !strings.Contains(console, "own init is") && time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		console = h.must(t, "logs", "--console", id)
	}
	if !strings.Contains(console, "own init is process 1 on 1 ext4") {
		t.Fatalf("its init does not say where it is:\n%s", console)
	}
	seen := h.must(t, "vm", "inspect", "-f", "{{.Config.rootfsPath}} {{.LogPath}} {{len .Config.blockDevices}} {{.Config.rateLimiters.disk.bandwidth.size}}", id)
	if want := disk + " " + log + " 1 52428800"; seen != want {
		t.Errorf("inspect: %q, want %q", seen, want)
	}
	if socket := h.must(t, "vm", "inspect", "-f", "{{.SocketPath}}", id); !isSocket(socket) {
		t.Errorf("%q is no socket", socket)
	}
	if guest := h.must(t, "vm", "inspect", "-f", "{{.Resources.guestBytes}}", id); len(guest) < 8 { // 10 MB
		t.Errorf("its guest has %s bytes", guest)
	}
	h.must(t, "vm", "stop", id)
	if ran, bye := onDisk(t, disk, "/ran"), onDisk(t, disk, "/bye"); ran != "own" || bye != "bye" {
		t.Errorf("its disk has %q and %q, want the machine's name and a farewell", ran, bye)
	}
	h.must(t, "vm", "rm", id)
	if _, err := os.Stat(disk); err != nil {
		t.Errorf("the disk went with the machine: %v", err)
	}
}

func isSocket(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode()&os.ModeSocket != 0
}
