// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"strings"
	"testing"
)

// TestRunExitCodes holds the codes of "run" against Docker's documented ones.
func TestRunExitCodes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name       string
		args       []string
		code       int
		wantStderr string
	}{
		{"success", []string{"true"}, 0, ""},
		{"failure", []string{"false"}, 1, ""},
		{"own code", []string{"sh", "-c", "exit 42"}, 42, ""},
		{"signal", []string{"sh", "-c", "kill -TERM $$; sleep 5"}, 143, ""},
		{"not found", []string{"no-such-command"}, 127, "not found"},
		{"not found by path", []string{"/no/such/command"}, 127, "no such file"},
		{"a directory", []string{"/etc"}, 126, ""},
		{"not executable", []string{"/etc/passwd"}, 126, "permission denied"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			// An init, since a PID 1 without handlers ignores its own signals.
			r := shared.run(t, append([]string{"run", "--rm", "--init", "busybox"}, c.args...)...)
			if r.code != c.code || !strings.Contains(strings.ToLower(r.stderr), c.wantStderr) {
				t.Errorf("want exit code %d and %q on stderr:\n%v", c.code, c.wantStderr, r)
			}
		})
	}
}

func TestRunSeparatesStreams(t *testing.T) {
	t.Parallel()
	r := shared.run(t, "run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; echo out2")
	// Before it may stand that a template is made.
	if r.code != 0 || r.stdout != "out\nout2\n" || !strings.HasSuffix(r.stderr, "err\n") || strings.Contains(r.stderr, "out") {
		t.Errorf("streams are mixed or changed:\n%v", r)
	}
}

func TestRunStdin(t *testing.T) {
	t.Parallel()
	if r := shared.runIn(t, "hello\nworld\n", "run", "--rm", "-i", "busybox", "cat"); r.stdout != "hello\nworld\n" || r.code != 0 {
		t.Errorf("with -i the input is not passed on:\n%v", r)
	}
	if r := shared.runIn(t, "hello\n", "run", "--rm", "busybox", "cat"); r.stdout != "" || r.code != 0 {
		t.Errorf("without -i the input must be empty:\n%v", r)
	}
}

// TestRunConfig asks one container for much at once: a boot costs seconds.
func TestRunConfig(t *testing.T) {
	t.Parallel()
	r := shared.run(t, "run", "--rm",
		"-e", "A=1", "-e", "B=two words", "-h", "box", "--domainname", "example.org", "-w", "/made/here",
		"-u", "app:staff", "--group-add", "99", "--add-host", "db:10.1.2.3", "--dns", "10.9.9.9", "--dns-search", "corp.example",
		"--label", "x=y", "--ulimit", "nofile=100:200", "--shm-size", "32m", "--tmpfs", "/scratch:size=1m,mode=1777",
		"busybox", "sh", "-c", `
echo "env $A|$B|$HOSTNAME|$PATH|$HOME"
echo "host $(hostname) $(cat /proc/sys/kernel/domainname) $(cat /etc/hostname)"
echo "cwd $(pwd)"
echo "ids $(id -u) $(id -g) $(id -G)"
echo "hosts $(grep -c '10.1.2.3.*db' /etc/hosts) $(grep -c 127.0.0.1 /etc/hosts) $(grep -c box /etc/hosts)"
echo "dns $(tr '\n' ';' </etc/resolv.conf)"
echo "nofile $(ulimit -Sn) $(ulimit -Hn)"
echo "shm $(df -k /dev/shm | tail -1 | awk '{print $2}')"
echo "tmpfs $(df -k /scratch | tail -1 | awk '{print $2}') $(touch /scratch/f && echo writable)"
echo "pid $$"
echo "lo $(cat /sys/class/net/lo/operstate 2>/dev/null)"
`)
	if r.code != 0 {
		t.Fatalf("want success:\n%v", r)
	}
	for _, want := range []string{
		"env 1|two words|box|/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin|",
		"host box example.org box", "cwd /made/here", "hosts 1 1 2",
		"dns nameserver ", "search corp.example;", "nofile 100 200", "shm 32768", "tmpfs 1024 writable", "pid 1",
	} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("want %q in the container's own view:\n%v", want, r)
		}
	}
	if !strings.Contains(r.stdout, "ids 1000 50 50 ") || !strings.Contains(r.stdout, " 99\n") || strings.Contains(r.stdout, "2000") {
		t.Errorf("want user app with group staff alone and 99 added:\n%v", r)
	}
}

func TestRunUsers(t *testing.T) {
	t.Parallel()
	r := shared.run(t, "run", "--rm", "-u", "nobody-knows", "busybox", "true")
	if r.code == 0 || !strings.Contains(r.stderr, "nobody-knows") {
		t.Errorf("an unknown user must be named and refused:\n%v", r)
	}
	if r := shared.run(t, "run", "--rm", "-u", "app", "busybox", "id", "-G"); r.stdout != "1000 50 2000\n" {
		t.Errorf("supplementary groups come from the image's own file:\n%v", r)
	}
	r = shared.run(t, "run", "--rm", "-u", "12345:54321", "busybox", "sh", "-c", "id -u; id -g")
	if r.stdout != "12345\n54321\n" {
		t.Errorf("numbers need no entry in passwd:\n%v", r)
	}
}

func TestRunReadOnly(t *testing.T) {
	t.Parallel()
	r := shared.run(t, "run", "--rm", "--read-only", "--tmpfs", "/tmp", "busybox", "sh", "-c", "touch /tmp/ok && touch /x")
	if r.code == 0 || !strings.Contains(r.stderr, "Read-only file system") {
		t.Errorf("the root must be read-only:\n%v", r)
	}
}

func TestRunMachineSize(t *testing.T) {
	t.Parallel()
	r := shared.run(t, "run", "--rm", "-m", "300m", "--cpus", "2", "busybox", "sh", "-c",
		"nproc; awk '/MemTotal/{print $2}' /proc/meminfo; cat /sys/fs/cgroup/memory.max")
	if r.code != 0 {
		t.Fatal(r)
	}
	lines := strings.Fields(r.stdout)
	if len(lines) != 3 || lines[0] != "2" || lines[2] != "314572800" {
		t.Errorf("want 2 CPUs and a limit of 300 MiB in a larger machine:\n%v", r)
	}
}

func TestRunOutOfMemory(t *testing.T) {
	t.Parallel()
	name := shared.name(t)
	r := shared.run(t, "run", "--name", name, "-m", "64m", "busybox", "sh", "-c", "x=$(head -c 200m /dev/zero | tr '\\0' x); echo survived ${#x}")
	if r.code != 137 || !strings.Contains(r.stderr, "memory") {
		t.Errorf("want 137 and a word about memory:\n%v", r)
	}
	if oom := shared.must(t, "inspect", "-f", "{{.State.OOMKilled}}", name); oom != "true" {
		t.Errorf("inspect says OOMKilled %s, want true", oom)
	}
}

func TestCidfileAndNames(t *testing.T) {
	t.Parallel()
	name := shared.name(t)
	file := t.TempDir() + "/cid"
	shared.must(t, "create", "--name", name, "--cidfile", file, "busybox", "true")
	if r := shared.run(t, "create", "--name", name, "busybox", "true"); r.code != 125 || !strings.Contains(r.stderr, name) {
		t.Errorf("a name in use must be refused with 125:\n%v", r)
	}
	id := shared.must(t, "inspect", "-f", "{{.Id}}", name)
	if r := shared.run(t, "create", "--cidfile", file, "busybox", "true"); r.code != 125 {
		t.Errorf("an existing cidfile must be refused:\n%v", r)
	}
	if byPrefix := shared.must(t, "inspect", "-f", "{{.Name}}", id[:12]); byPrefix != "/"+name {
		t.Errorf("found by prefix: %q, want %q", byPrefix, "/"+name)
	}
}
