// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"strings"
	"testing"
)

// TestSecurityDefaults: what Docker takes from a container by default is taken here too.
func TestSecurityDefaults(t *testing.T) {
	t.Parallel()
	r := shared.run(t, "run", "--rm", "busybox", "sh", "-c", `
grep -E 'Cap(Eff|Bnd|Inh|Amb)|Seccomp:|NoNewPrivs' /proc/self/status
mkdir /m; mount -t tmpfs none /m 2>&1
echo x > /proc/sys/kernel/hostname 2>&1
cat /proc/kcore 2>&1 | head -c 1 | wc -c
cat /proc/latency_stats /proc/timer_list 2>/dev/null | wc -c
ls -A /proc/scsi /sys/firmware 2>/dev/null | grep -v : | tr -d '\n' | wc -c
unshare -m true 2>&1
mknod /tmp/vda b 254 0 && cat /tmp/vda 2>&1 | head -c 100
echo disks $(ls /dev | grep -c vda)
echo init $(cat /proc/1/comm)
`)
	for _, want := range []string{
		"CapEff:\t00000000a80425fb", "CapBnd:\t00000000a80425fb", "CapAmb:\t0000000000000000", "Seccomp:\t2",
		"permission denied", "read-only file system", "peration not permitted", "disks 0",
	} {
		if !strings.Contains(strings.ToLower(r.stdout+r.stderr), strings.ToLower(want)) {
			t.Errorf("want %q:\n%v", want, r)
		}
	}
}

func TestCapabilities(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		flags []string
		want  string
	}{
		{[]string{"--cap-drop", "ALL"}, "CapEff:\t0000000000000000"},
		{[]string{"--cap-drop", "ALL", "--cap-add", "NET_BIND_SERVICE"}, "CapEff:\t0000000000000400"},
		{[]string{"--privileged"}, "CapEff:\t000001ffffffffff"},
		{[]string{"-u", "daemon"}, "CapEff:\t0000000000000000"},
		{[]string{"--security-opt", "no-new-privileges"}, "NoNewPrivs:\t1"},
		{[]string{"--security-opt", "seccomp=unconfined"}, "Seccomp:\t0"},
	} {
		t.Run(strings.Join(c.flags, " "), func(t *testing.T) {
			t.Parallel()
			r := shared.run(t, append(append([]string{"run", "--rm"}, c.flags...), "busybox", "cat", "/proc/self/status")...)
			if !strings.Contains(r.stdout, c.want+"\n") {
				t.Errorf("want %q:\n%v", c.want, r)
			}
		})
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	r := shared.run(t, "run", "--rm", "--pids-limit", "20", "--cpus", "0.5", "--cpu-shares", "512", "--sysctl", "kernel.msgmax=4096",
		"busybox", "sh", "-c", `
cd /sys/fs/cgroup && cat pids.max cpu.max
cat /proc/sys/kernel/msgmax
i=0; while [ $i -lt 40 ]; do sleep 30 & i=$((i+1)); done; echo started all`)
	for _, want := range []string{"20\n", "50000 100000", "4096"} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("want %q:\n%v", want, r)
		}
	}
	if strings.Contains(r.stdout, "started all") && !strings.Contains(r.stderr, "fork") {
		t.Errorf("41 processes under a limit of 20:\n%v", r)
	}
}

func TestPrivilegedAndDevices(t *testing.T) {
	t.Parallel()
	r := shared.run(t, "run", "--rm", "--privileged", "busybox", "sh", "-c", "mkdir /m && mount -t tmpfs none /m && ls /dev/vda && echo 1 > /proc/sys/kernel/panic_on_oops && echo all allowed")
	if !strings.Contains(r.stdout, "all allowed") {
		t.Errorf("--privileged must lift the walls within the machine:\n%v", r)
	}
	r = shared.run(t, "run", "--rm", "--device", "/dev/fuse:/dev/my-fuse:rw", "busybox", "sh", "-c", "ls -l /dev/my-fuse && : 3<>/dev/my-fuse && echo usable")
	if !strings.Contains(r.stdout, "usable") {
		t.Errorf("a device that was asked for must be usable:\n%v", r)
	}
}
