// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// mountTable reads a container's mounts: options by mount point, types by mount point.
const mountTable = `awk '{print $5, $6, $(NF-2), $(NF-1)}' /proc/self/mountinfo`

func TestStandardMounts(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	staged := shell(t, r, mountTable)
	for _, want := range []string{
		"/proc rw,nosuid,nodev,noexec,relatime proc proc",
		"/dev rw,nosuid tmpfs tmpfs",
		"/dev/pts rw,nosuid,noexec,relatime devpts devpts",
		"/sys ro,nosuid,nodev,noexec,relatime sysfs sysfs",
		"/sys/fs/cgroup ro,nosuid,nodev,noexec,relatime cgroup2 cgroup",
		"/dev/mqueue rw,nosuid,nodev,noexec,relatime mqueue mqueue",
		"/dev/shm rw,nosuid,nodev,noexec,relatime tmpfs shm",
		"/proc/sys ro,nosuid,nodev,noexec,relatime proc proc",
	} {
		if !strings.Contains(staged.out, want+"\n") {
			t.Errorf("mount %q is missing in\n%s", want, staged.out)
		}
	}
	// The same mounts, in a form that what is staged does not serve: all made afresh, with the same result.
	fresh := shell(t, r, mountTable, func(r *StartRequest) {
		r.Spec.Mounts = nil
		for _, m := range standardMounts {
			m.Options = append([]string{"rprivate"}, m.Options...)
			r.Spec.Mounts = append(r.Spec.Mounts, m)
		}
	})
	if sorted(fresh.out) != sorted(staged.out) {
		t.Errorf("without staged mounts got\n%s\nwith\n%s", fresh.out, staged.out)
	}
}

func sorted(text string) string {
	lines := strings.Split(text, "\n")
	// The order of masks differs and means nothing.
	for i := range lines {
		for j := i + 1; j < len(lines); j++ {
			if lines[j] < lines[i] {
				lines[i], lines[j] = lines[j], lines[i]
			}
		}
	}
	return strings.Join(lines, "\n")
}

func TestMasks(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	script := `echo x > /proc/sys/kernel/hostname; echo $?; cat /proc/kcore | wc -c; ls /sys/firmware | wc -l; ls /etc/hidden | wc -l; cat /etc/secret | wc -c; touch /etc/fixed/x; echo $?`
	prepare := func(r *StartRequest) {
		for _, d := range []string{"hidden", "fixed"} {
			mustMkdir(t, filepath.Join(r.RootFS.Dir, "etc", d, "sub"))
		}
		write(t, r.RootFS.Dir, "etc/secret", "secret")
		r.Spec.Linux.MaskedPaths = append([]string{"/etc/hidden", "/etc/secret", "/nonexistent", "/etc/passwd/x"}, standardMasked...)
		r.Spec.Linux.ReadonlyPaths = append([]string{"/etc/fixed", "/nonexistent"}, standardReadonly...)
	}
	if got := shell(t, r, script, prepare); got.out != "1\n0\n0\n0\n0\n1\n" {
		t.Errorf("masked: got %q, %q", got.out, got.err)
	}
	got := shell(t, r, "hostname changed; echo x > /proc/sys/kernel/domainname; hostname; cat /proc/sys/kernel/domainname", func(r *StartRequest) {
		caps := append([]string{"CAP_SYS_ADMIN"}, dockerCaps...)
		r.Spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
		r.Spec.Linux.MaskedPaths, r.Spec.Linux.ReadonlyPaths = nil, nil
	})
	if got.out != "changed\nx\n" {
		t.Errorf("privileged, nothing masked: got %q, %q", got.out, got.err)
	}
}

func mustMkdir(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestBindMounts(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	source := t.TempDir()
	write(t, source, "file", "bound\n")
	mustMkdir(t, filepath.Join(source, "sub"))
	script := `cat /one /new/folder/file; touch /new/folder/x; echo $?; touch /rw/y; echo $?; grep -E ' /(rw|one|new/folder) ' /proc/self/mountinfo | awk '{print $5, $6}' | sort`
	got := shell(t, r, script, func(r *StartRequest) {
		r.Spec.Mounts = append(append([]specs.Mount(nil), standardMounts...),
			specs.Mount{Destination: "/one", Type: "bind", Source: filepath.Join(source, "file"), Options: []string{"bind", "nosuid"}},
			specs.Mount{Destination: "/new/folder", Type: "none", Source: source, Options: []string{"rbind", "rro", "rprivate"}},
			specs.Mount{Destination: "/rw", Source: source, Options: []string{"bind", "noexec", "noatime", "rw"}},
		)
	})
	want := "bound\nbound\n1\n0\n/new/folder ro,relatime\n/one rw,nosuid,relatime\n/rw rw,noexec,noatime\n"
	if got.out != want {
		t.Errorf("got %q, %q, want %q", got.out, got.err, want)
	}
	if _, err := os.Stat(filepath.Join(source, "y")); err != nil {
		t.Errorf("what the container wrote is not there: %v", err)
	}
}

func TestPropagation(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	for _, name := range []string{"", "private", "rslave", "shared", "unbindable"} {
		got := shell(t, r, `awk '$5 == "/" {print $7}' /proc/self/mountinfo; awk '$5 == "/shared" {print $7}' /proc/self/mountinfo`, func(r *StartRequest) {
			r.Spec.Linux.RootfsPropagation = name
			r.Spec.Mounts = append(append([]specs.Mount(nil), standardMounts...),
				specs.Mount{Destination: "/shared", Type: "tmpfs", Source: "tmpfs", Options: []string{"shared"}})
		})
		root, mount, _ := strings.Cut(got.out, "\n")
		want := map[string]string{"shared": "shared:", "unbindable": "unbindable"}[name]
		if want == "" {
			want = "-"
		}
		if !strings.HasPrefix(root, want) || !strings.HasPrefix(mount, "shared:") {
			t.Errorf("propagation %q: got %q, want root %s and /shared shared", name, got.out, want)
		}
	}
}

func TestReadonlyRoot(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	got := shell(t, r, "touch /x; echo $?; touch /tmp/x /dev/shm/x; echo $?; pwd", func(r *StartRequest) {
		r.Spec.Root.Readonly = true
		r.Spec.Process.Cwd = "/made/before"
		r.Spec.Mounts = append(append([]specs.Mount(nil), standardMounts...),
			specs.Mount{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"size=64k"}})
	})
	if got.out != "1\n0\n/made/before\n" {
		t.Errorf("got %q, %q", got.out, got.err)
	}
}

func TestFiles(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	got := shell(t, r, "cat /etc/hosts /run/resolv.conf; stat -c '%a %u' /etc/hosts; echo more >> /etc/hosts; cat /etc/hosts; readlink /etc/resolv.conf", func(r *StartRequest) {
		// As in images made from a running systemd: the link leads nowhere yet.
		if err := os.Symlink("../run/resolv.conf", filepath.Join(r.RootFS.Dir, "etc/resolv.conf")); err != nil {
			t.Fatal(err)
		}
		r.Files = []File{
			{Path: "/etc/hosts", Mode: 0o644, Content: []byte("127.0.0.1 localhost\n")},
			{Path: "/etc/resolv.conf", Mode: 0o600, Content: []byte("nameserver 192.0.2.1\n")},
		}
	})
	want := "127.0.0.1 localhost\nnameserver 192.0.2.1\n644 0\n127.0.0.1 localhost\nmore\n../run/resolv.conf\n"
	if got.out != want {
		t.Errorf("got %q, %q, want %q", got.out, got.err, want)
	}
}

func TestDevices(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	mode, id := os.FileMode(0o640), uint32(1000)
	got := shell(t, r, `for d in null zero full random urandom tty; do stat -c '%n %t:%T %a' /dev/$d; done
for l in fd stdin stdout stderr ptmx; do readlink /dev/$l; done; stat -c '%F %t:%T %a %u %g' /dev/deep/own /dev/block; stat -c '%F' /dev/fifo; stat -c %a /dev/zero`, func(r *StartRequest) {
		r.Spec.Linux.Devices = []specs.LinuxDevice{
			{Path: "/dev/deep/own", Type: "c", Major: 10, Minor: 229, FileMode: &mode, UID: &id, GID: &id},
			{Path: "/dev/block", Type: "b", Major: 7, Minor: 300},
			{Path: "/dev/fifo", Type: "p"},
			{Path: "/dev/zero", Type: "u", Major: 1, Minor: 5, FileMode: &mode}, // there already: permissions are changed
		}
	})
	want := `/dev/null 1:3 666
/dev/zero 1:5 640
/dev/full 1:7 666
/dev/random 1:8 666
/dev/urandom 1:9 666
/dev/tty 5:0 666
/proc/self/fd
/proc/self/fd/0
/proc/self/fd/1
/proc/self/fd/2
pts/ptmx
character special file a:e5 640 1000 1000
block special file 7:12c 666 0 0
fifo
640
`
	if got.out != want {
		t.Errorf("got\n%s%s, want\n%s", got.out, got.err, want)
	}
	req := request(busybox(t), dockerSpec("true"))
	req.Spec.Linux.Devices = []specs.LinuxDevice{{Path: "/bin/busybox", Type: "c", Major: 1, Minor: 3}}
	if _, err := tryRun(t, r, req); !errors.Is(err, ErrInvalid) {
		t.Errorf("a device where a file is: got %v, want ErrInvalid", err)
	}
}

func TestDevWithoutItsMount(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	got := shell(t, r, "stat -c %t:%T /dev/null; readlink /dev/fd", func(r *StartRequest) {
		r.Spec.Mounts = standardMounts[:1]
		write(t, r.RootFS.Dir, "dev/fd", "an image's own file stays")
	})
	if got.out != "1:3\n" {
		t.Errorf("got %q, %q", got.out, got.err)
	}
	got = shell(t, r, "stat -c %t:%T /dev/null; ls /dev/pts/ptmx", func(r *StartRequest) {
		r.Spec.Mounts = []specs.Mount{standardMounts[0], {Destination: "/dev", Source: "/dev", Options: []string{"rbind"}}}
	})
	if got.out != "1:3\n/dev/pts/ptmx\n" {
		t.Errorf("with the machine's own /dev got %q, %q", got.out, got.err)
	}
}

func TestNamespaces(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	read := func(kind string) string {
		s, err := os.Readlink("/proc/self/ns/" + kind)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	const script = `for n in cgroup ipc uts net pid; do readlink /proc/self/ns/$n; done; echo $$; ls /sys/class/net | head -n 1`
	host := []string{read("cgroup"), read("ipc"), read("uts"), read("net"), read("pid")}
	var own []string
	t.Run("own", func(t *testing.T) {
		own = strings.Fields(shell(t, r, script).out)
		for i, n := range host {
			if same := own[i] == n; same != (i == 3) {
				t.Errorf("namespace %s: the machine's is %s; only the network should be", own[i], n)
			}
		}
	})
	t.Run("machine's", func(t *testing.T) {
		got := strings.Fields(shell(t, r, script+"; exit 0", func(r *StartRequest) {
			r.Spec.Hostname = ""
			r.Spec.Linux.Namespaces = []specs.LinuxNamespace{{Type: specs.MountNamespace}}
		}).out)
		for i, n := range host {
			if got[i] != n {
				t.Errorf("got namespace %s, want the machine's %s", got[i], n)
			}
		}
	})
	t.Run("new network", func(t *testing.T) {
		got := shell(t, r, "ls /sys/class/net; cat /sys/class/net/lo/operstate; readlink /proc/self/ns/net", func(r *StartRequest) {
			r.Spec.Linux.Namespaces = append(r.Spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.NetworkNamespace})
		})
		if !strings.HasPrefix(got.out, "lo\nunknown\nnet:") || strings.Contains(got.out, host[3]) {
			t.Errorf("got %q, want a network with nothing but a loopback that is up", got.out)
		}
	})
	t.Run("joined", func(t *testing.T) {
		_, p, _ := running(t, r, "echo ready; sleep 1000")
		ns := "/proc/" + strconv.Itoa(p.Pid()) + "/ns/"
		got := strings.Fields(shell(t, r, script, func(r *StartRequest) {
			r.Spec.Hostname = ""
			r.Spec.Linux.Namespaces = []specs.LinuxNamespace{
				{Type: specs.PIDNamespace, Path: ns + "pid"}, {Type: specs.IPCNamespace, Path: ns + "ipc"},
				{Type: specs.UTSNamespace, Path: ns + "uts"}, {Type: specs.NetworkNamespace, Path: ns + "net"},
				{Type: specs.MountNamespace},
			}
		}).out)
		for i, kind := range []string{"ipc", "uts", "net", "pid"} {
			if want, _ := os.Readlink(ns + kind); got[i+1] != want {
				t.Errorf("%s: got %s, want that of the other container, %s", kind, got[i+1], want)
			}
		}
		if got[5] == "1" {
			t.Error("the second container's process is PID 1 of the first's namespace")
		}
	})
}

// What a container without a pid namespace of its own leaves behind ends with its first process.
func TestRestEndsWithTheFirstProcess(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	got := shell(t, r, "setsid sleep 1000 & echo started", func(r *StartRequest) {
		r.Spec.Linux.Namespaces = r.Spec.Linux.Namespaces[1:]
	})
	if got.out != "started\n" { // drain reads to the end of output: the sleep has it open
		t.Errorf("got %+v", got)
	}
}

func TestSysctl(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	got := shell(t, r, "sysctl -n kernel.shmmni net.ipv4.ip_unprivileged_port_start", func(r *StartRequest) {
		r.Spec.Linux.Sysctl = map[string]string{"kernel.shmmni": "123", "net.ipv4.ip_unprivileged_port_start": "77"}
		r.Spec.Linux.Namespaces = append(r.Spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.NetworkNamespace})
	})
	if got.out != "123\n77\n" {
		t.Errorf("got %q, %q", got.out, got.err)
	}
	req := request(busybox(t), dockerSpec("true"))
	req.Spec.Linux.Sysctl = map[string]string{"../self/oom_score_adj": "1"}
	if _, err := tryRun(t, r, req); err == nil {
		t.Error("a sysctl outside of /proc/sys was written")
	}
	req.Spec.Linux.Sysctl = map[string]string{"kernel//../../self/oom_score_adj": "1"}
	if _, err := tryRun(t, r, req); err == nil {
		t.Error("a sysctl outside of /proc/sys was written")
	}
}

func TestPersonality(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	got := shell(t, r, "busybox uname -m", func(r *StartRequest) {
		r.Spec.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32}
	})
	if got.out != "i686\n" {
		t.Errorf("got %q, want a 32 bit machine", got.out)
	}
}
