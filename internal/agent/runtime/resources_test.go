// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// loopDevice binds a file to a loop device until the test ends.
func loopDevice(t *testing.T, file string, readonly bool) string {
	t.Helper()
	args := []string{"--find", "--show", file}
	if readonly {
		args = append([]string{"--read-only"}, args...)
	}
	out, err := exec.Command("losetup", args...).CombinedOutput()
	if err != nil {
		t.Skipf("this host has no loop device to spare: %v: %s", err, out)
	}
	device := strings.TrimSpace(string(out))
	t.Cleanup(func() { mustRun(t, "losetup", "--detach", device) })
	return device
}

// erofsImage makes an EROFS image of a busybox root file system.
func erofsImage(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/filesystems")
	if err != nil || !strings.Contains(string(b), "\terofs\n") || !strings.Contains(string(b), "\toverlay\n") {
		t.Skip("this host's kernel lacks erofs or overlay")
	}
	root := busybox(t)
	if err := os.Chmod(root, 0o711); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "image.erofs")
	mustRun(t, "mkfs.erofs", file, root)
	return file
}

func scratch(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "scratch.ext4")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, 64<<20); err != nil {
		t.Fatal(err)
	}
	mustRun(t, "mkfs.ext4", "-q", "-F", file)
	return file
}

func TestImageWithScratchDisk(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	root := RootFS{ImageDevice: loopDevice(t, erofsImage(t), true), ScratchDevice: loopDevice(t, scratch(t), false)}
	on := func(script string) result {
		return shell(t, r, script, func(r *StartRequest) { r.RootFS = root })
	}
	got := on(`awk '$5 == "/" {print $(NF-2)}' /proc/self/mountinfo; stat -c %a /; echo kept > /root/file; rm /etc/group; cat /etc/group; wc -l < /proc/self/mountinfo`)
	if lines := strings.Fields(got.out); len(lines) < 2 || lines[0] != "overlay" || lines[1] != "711" || !strings.Contains(got.err, "/etc/group") {
		t.Errorf("got %q, %q, want an overlay with the image's permissions", got.out, got.err)
	}
	if strings.Contains(got.out, "erofs") || strings.Contains(got.out, "ext4") {
		t.Errorf("the layers below are mounted in the container: %s", got.out)
	}
	// Deleted and started again: the disk was let go, and has what was written.
	if got := on("cat /root/file; ls /etc"); got.out != "kept\nhosts\npasswd\n" && got.out != "kept\npasswd\n" {
		t.Errorf("after a restart got %q, %q", got.out, got.err)
	}
}

func TestImageWithoutScratchDisk(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	device := loopDevice(t, erofsImage(t), true)
	got := shell(t, r, "echo x > /etc/new && cat /etc/new", func(r *StartRequest) { r.RootFS = RootFS{ImageDevice: device} })
	if got.out != "x\n" {
		t.Errorf("got %q, %q, want changes kept in memory", got.out, got.err)
	}
}

func TestBrokenDisks(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	good := loopDevice(t, erofsImage(t), true)
	garbage := filepath.Join(t.TempDir(), "garbage")
	if err := os.WriteFile(garbage, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	bad := loopDevice(t, garbage, false)
	for step, root := range map[string]RootFS{
		"mounting the image":        {ImageDevice: bad},
		"mounting the scratch disk": {ImageDevice: good, ScratchDevice: bad},
	} {
		req := request("", dockerSpec("true"))
		req.RootFS = root
		if _, err := tryRun(t, r, req); err == nil || !strings.Contains(err.Error(), step) {
			t.Errorf("got %v, want an error while %s", err, step)
		}
	}
}

// needController skips a test where a controller is missing.
func needController(t *testing.T, r *Runtime, names ...string) {
	t.Helper()
	for _, name := range names {
		if !containsAll(r.groups.controllers, []string{name}) {
			t.Skipf("cgroup v2 of this host has no controller %q", name)
		}
	}
}

func number[T any](n T) *T { return &n }

func withResources(res *specs.LinuxResources) func(*StartRequest) {
	return func(r *StartRequest) { r.Spec.Linux.Resources = res }
}

// A limit that the machine cannot keep is an error that names what is missing, not left out.
func TestLimitWithoutController(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	req := request(busybox(t), dockerSpec("true"))
	req.Spec.Linux.Resources = &specs.LinuxResources{Unified: map[string]string{"magic.max": "1"}}
	if _, err := tryRun(t, r, req); err == nil || !strings.Contains(err.Error(), `no cgroup controller "magic"`) {
		t.Errorf("got %v", err)
	}
}

func TestLimitFiles(t *testing.T) {
	t.Parallel()
	l, err := planLimits(&specs.LinuxResources{
		CPU:            &specs.LinuxCPU{Shares: number(uint64(1024)), Quota: number(int64(50000)), Burst: number(uint64(1000)), Idle: number(int64(1)), Cpus: "0-1", Mems: "0"},
		Memory:         &specs.LinuxMemory{Limit: number(int64(64 << 20)), Swap: number(int64(96 << 20)), Reservation: number(int64(32 << 20))},
		Pids:           &specs.LinuxPids{Limit: number(int64(-1))},
		HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 4 << 20}},
		BlockIO: &specs.LinuxBlockIO{
			Weight:                 number(uint16(500)),
			WeightDevice:           []specs.LinuxWeightDevice{{LinuxBlockIODevice: specs.LinuxBlockIODevice{Major: 8, Minor: 0}, Weight: number(uint16(10))}},
			ThrottleReadBpsDevice:  []specs.LinuxThrottleDevice{{LinuxBlockIODevice: specs.LinuxBlockIODevice{Major: 8, Minor: 16}, Rate: 1000}},
			ThrottleWriteBpsDevice: []specs.LinuxThrottleDevice{{LinuxBlockIODevice: specs.LinuxBlockIODevice{Major: 8, Minor: 16}, Rate: 2000}},
		},
		Unified: map[string]string{"memory.high": "1000000", "io.latency": "8:0 target=1\n8:16 target=2"},
	})
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for _, f := range l.files {
		got.WriteString(f.name + " = " + f.value + "\n")
	}
	want := `cpu.weight = 39
cpu.max = 50000 100000
cpu.max.burst = 1000
cpu.idle = 1
cpuset.cpus = 0-1
cpuset.mems = 0
memory.low = 33554432
memory.max = 67108864
memory.swap.max = 33554432
pids.max = max
hugetlb.2MB.max = 4194304
io.weight = 4950
io.weight = 8:0 1
io.max = 8:16 rbps=1000
io.max = 8:16 wbps=2000
io.latency = 8:0 target=1
io.latency = 8:16 target=2
memory.high = 1000000
`
	if got.String() != want {
		t.Errorf("got\n%s, want\n%s", got.String(), want)
	}
	unlimited, err := planLimits(&specs.LinuxResources{CPU: &specs.LinuxCPU{Period: number(uint64(20000))}, Memory: &specs.LinuxMemory{Swap: number(int64(-1)), Limit: number(int64(-1))}})
	if err != nil || len(unlimited.files) != 3 || unlimited.files[0].value != "max 20000" || unlimited.files[1].value != "max" || unlimited.files[2].value != "max" {
		t.Errorf("got %+v, %v", unlimited, err)
	}
}

func TestLimitOfProcesses(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	needController(t, r, "pids")
	// Five in all; the runtime's own threads before execve must not count against it.
	got := shell(t, r, "cat /sys/fs/cgroup/pids.max; for i in 1 2 3 4 5 6; do sleep 1 & done; wait", withResources(&specs.LinuxResources{Pids: &specs.LinuxPids{Limit: number(int64(3))}}))
	if !strings.HasPrefix(got.out, "3\n") || !strings.Contains(got.err, "fork") {
		t.Errorf("got %+v, want a failing fork", got)
	}
}

func TestDeathByLackOfMemory(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	needController(t, r, "memory")
	limit := withResources(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: number(int64(16 << 20)), Swap: number(int64(16 << 20))}})
	got := shell(t, r, "exec dd if=/dev/zero of=/dev/null bs=64M count=1", limit)
	if got.Code != 137 || !got.OOMKilled {
		t.Errorf("got %+v, want code 137, killed for lack of memory", got)
	}
	id, _, _ := running(t, r, "echo ready; sleep 1000", limit)
	if got := execIn(t, r, id, ExecRequest{Process: process("dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1")}); got.Code != 137 || !got.OOMKilled {
		t.Errorf("exec: got %+v, want code 137, killed for lack of memory", got)
	}
	stats, err := r.Stats(id)
	if err != nil || stats.MemoryBytes == 0 || stats.MemoryLimitBytes != 16<<20 || stats.OOMKills != 1 {
		t.Errorf("got %+v, %v", stats, err)
	}
}

func TestDeviceFilter(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	group, err := r.groups.create()
	if err != nil {
		t.Fatal(err)
	}
	if err := group.filterDevices([]deviceRule{{allow: false, major: anyNumber, minor: anyNumber, access: accessAll}}); err != nil {
		_ = group.remove()
		t.Skipf("this host cannot filter devices: %v", err)
	}
	if err := group.remove(); err != nil {
		t.Fatal(err)
	}
	// The FUSE device (10:229) may be read or written as the rules say.
	script := `mknod /tmp/d c 10 229; (head -c 0 < /tmp/d) && echo read; (true > /tmp/d) && echo write; echo x > /dev/null && head -c 1 /dev/zero | wc -c`
	deny := specs.LinuxDeviceCgroup{Allow: false, Access: "rwm"}
	kmsg := func(allow bool, access string) specs.LinuxDeviceCgroup {
		return specs.LinuxDeviceCgroup{Allow: allow, Type: "c", Major: number(int64(10)), Minor: number(int64(229)), Access: access}
	}
	all := specs.LinuxDeviceCgroup{Allow: true, Type: "a", Access: "rwm"}
	for name, tc := range map[string]struct {
		rules []specs.LinuxDeviceCgroup
		want  string
	}{
		"none":             {nil, "read\nwrite\n1\n"},
		"nothing":          {[]specs.LinuxDeviceCgroup{deny}, "1\n"},
		"to read":          {[]specs.LinuxDeviceCgroup{deny, kmsg(true, "rm")}, "read\n1\n"},
		"all":              {[]specs.LinuxDeviceCgroup{deny, kmsg(true, "rwm")}, "read\nwrite\n1\n"},
		"privileged":       {[]specs.LinuxDeviceCgroup{deny, all}, "read\nwrite\n1\n"},
		"all but one":      {[]specs.LinuxDeviceCgroup{all, kmsg(false, "")}, "1\n"},
		"all but to write": {[]specs.LinuxDeviceCgroup{all, kmsg(false, "w")}, "read\n1\n"},
		"another":          {[]specs.LinuxDeviceCgroup{deny, {Allow: true, Type: "b", Major: number(int64(1)), Access: "rwm"}}, "1\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := shell(t, r, script, withResources(&specs.LinuxResources{Devices: tc.rules}))
			if got.out != tc.want {
				t.Errorf("got %q, %q, want %q", got.out, got.err, tc.want)
			}
		})
	}
}

// The kernel takes every program that rules can make.
func TestDevicePrograms(t *testing.T) {
	t.Parallel()
	for _, rules := range [][]deviceRule{
		{}, alwaysAllowed, {{allow: true, major: anyNumber, minor: anyNumber, access: accessAll}},
	} {
		code := program(rules)
		if len(assemble(code)) != 8*len(code) || code[len(code)-1].code != opExit {
			t.Errorf("program of %v: %v", rules, code)
		}
		for i, in := range code {
			if in.off > 0 && in.code != opLoad && i+1+int(in.off) >= len(code) {
				t.Errorf("instruction %d of %v jumps out of the program", i, code)
			}
		}
	}
	if unix.BPF_DEVCG_ACC_MKNOD|unix.BPF_DEVCG_ACC_READ|unix.BPF_DEVCG_ACC_WRITE != 7 {
		t.Error("accesses are not bits")
	}
}
