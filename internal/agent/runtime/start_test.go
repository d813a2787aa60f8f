// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestExitCodesAreExact(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	for _, tc := range []struct {
		script string
		code   int
		signal syscall.Signal
	}{
		{"exit 0", 0, 0},
		{"exit 42", 42, 0},
		{"exit 255", 255, 0},
		// A shell below PID 1 that is killed: its own status, told by the shell.
		{"sh -c 'kill -TERM $$'; exit $?", 143, 0},
		{"sh -c 'kill -KILL $$'; exit $?", 137, 0},
	} {
		t.Run(tc.script, func(t *testing.T) {
			t.Parallel()
			got := shell(t, r, tc.script)
			if got.Code != tc.code || got.Signal != tc.signal || got.OOMKilled || got.At.IsZero() {
				t.Errorf("got %+v, want code %d", got, tc.code)
			}
		})
	}
}

// What a user does wrong must be told in Docker's words, with Docker's exit code, and leave nothing.
func TestErrorsBeforeTheCommandRuns(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	root := busybox(t)
	write(t, root, "plain", "not executable")
	write(t, root, "script", "#!/no/such/interpreter\n")
	write(t, root, "garbage", "\x7fELF but no")
	for _, name := range []string{"script", "garbage"} {
		if err := os.Chmod(filepath.Join(root, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(root, "secret"), 0o700); err != nil {
		t.Fatal(err)
	}
	copyFile(t, "/bin/busybox", filepath.Join(root, "secret/true"))

	for _, tc := range []struct {
		name     string
		args     []string
		change   func(*StartRequest)
		kind     error
		sentence string
	}{
		{"not in PATH", []string{"foo"}, nil, ErrCommandNotFound, `exec: "foo": executable file not found in $PATH`},
		{"empty name", []string{""}, nil, ErrCommandNotFound, `exec: "": executable file not found in $PATH`},
		{"no such path", []string{"/nope"}, nil, ErrCommandNotFound, `exec: "/nope": stat /nope: no such file or directory`},
		{"below a file", []string{"/etc/passwd/x"}, nil, ErrCommandNotFound, `exec: "/etc/passwd/x": stat /etc/passwd/x: not a directory`},
		{"folder", []string{"/etc"}, nil, ErrNotExecutable, `exec: "/etc": is a directory`},
		{"no permission", []string{"/plain"}, nil, ErrNotExecutable, `exec: "/plain": permission denied`},
		{"not the user's", []string{"/secret/true"}, func(r *StartRequest) { r.User = "app" }, ErrNotExecutable, `exec: "/secret/true": permission denied`},
		{"script without interpreter", []string{"/script"}, nil, ErrCommandNotFound, `exec /script: no such file or directory`},
		{"bad format", []string{"/garbage"}, nil, ErrNotExecutable, `exec /garbage: exec format error`},
		{"with init, not in PATH", []string{"foo"}, func(r *StartRequest) { r.Init = true }, ErrCommandNotFound, `exec: "foo": executable file not found in $PATH`},
		{"with init, bad format", []string{"/garbage"}, func(r *StartRequest) { r.Init = true }, ErrNotExecutable, `exec /garbage: exec format error`},
		{"unknown user", []string{"true"}, func(r *StartRequest) { r.User = "nobody-here" }, ErrUser, "unable to find user nobody-here: no matching entries in passwd file"},
		{"unknown group", []string{"true"}, func(r *StartRequest) { r.User = "app:nogroup" }, ErrUser, "unable to find group nogroup: no matching entries in group file"},
		{"unknown group added", []string{"true"}, func(r *StartRequest) { r.GroupAdd = []string{"nogroup"} }, ErrUser, "nogroup"},
		{"user out of range", []string{"true"}, func(r *StartRequest) { r.User = "4294967296" }, ErrUser, "range"},
		{"cwd is a file", []string{"true"}, func(r *StartRequest) { r.Spec.Process.Cwd = "/etc/passwd" }, ErrWorkingDir, `chdir to cwd ("/etc/passwd") set in config.json failed: not a directory`},
		{"cwd below a file", []string{"true"}, func(r *StartRequest) { r.Spec.Process.Cwd = "/etc/passwd/x" }, ErrWorkingDir, `not a directory`},
		{"cwd relative", []string{"true"}, func(r *StartRequest) { r.Spec.Process.Cwd = "x" }, ErrWorkingDir, `working directory "x" is not an absolute path`},
		{"no command", nil, nil, ErrInvalid, "no command specified"},
		{"zero byte in an argument", []string{"echo", "a\x00b"}, nil, ErrInvalid, "zero byte"},
		{"zero byte in the environment", []string{"true"}, func(r *StartRequest) { r.Spec.Process.Env = []string{"PATH=/bin", "A=\x00"} }, ErrInvalid, "zero byte"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			req := request(root, dockerSpec(tc.args...))
			if tc.change != nil {
				tc.change(&req)
			}
			_, err := tryRun(t, r, req)
			if !errors.Is(err, tc.kind) || err == nil || !strings.Contains(err.Error(), tc.sentence) {
				t.Fatalf("got %v, want a %q with %q", err, tc.kind, tc.sentence)
			}
			if err := r.Delete(t.Context(), req.ID); !errors.Is(err, ErrNotFound) {
				t.Errorf("after a start that failed, Delete gives %v, want ErrNotFound", err)
			}
		})
	}
}

func TestUsers(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	for _, tc := range []struct {
		name   string
		change func(*StartRequest)
		want   string // uid gid groups HOME
	}{
		{"none", func(*StartRequest) {}, "0 0 0 /root"},
		{"name", func(r *StartRequest) { r.User = "app" }, "1000 1000 1000 10 29 /home/app"},
		{"number in passwd", func(r *StartRequest) { r.User = "1000" }, "1000 1000 1000 10 29 /home/app"},
		{"number of nobody", func(r *StartRequest) { r.User = "4242" }, "4242 0 0 /"},
		{"name and group", func(r *StartRequest) { r.User = "app:wheel" }, "1000 10 10 /home/app"},
		{"numbers", func(r *StartRequest) { r.User = "7:8" }, "7 8 8 /"},
		{"groups added", func(r *StartRequest) { r.User = "app:app"; r.GroupAdd = []string{"audio", "4711"} }, "1000 1000 1000 29 4711 /home/app"},
		{"spec's", func(r *StartRequest) {
			r.Spec.Process.User = specs.User{UID: 1000, GID: 29, AdditionalGids: []uint32{5, 6}}
		}, "1000 29 29 5 6 /home/app"},
		{"HOME is kept", func(r *StartRequest) { r.Spec.Process.Env = append(r.Spec.Process.Env, "HOME=/elsewhere") }, "0 0 0 /elsewhere"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got := shell(t, r, "echo $(id -u) $(id -g) $(id -G) $HOME", tc.change)
			if strings.TrimSpace(got.out) != tc.want {
				t.Errorf("got %q, %q, want %q", got.out, got.err, tc.want)
			}
		})
	}
}

func TestWorkingFolderIsMade(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	got := shell(t, r, "pwd; stat -c '%a %u %g' .", func(r *StartRequest) {
		r.Spec.Process.Cwd = "/srv/new/folder"
		r.User = "app"
	})
	if got.out != "/srv/new/folder\n755 0 0\n" {
		t.Errorf("got %q, want the folder, of root and with permissions 755", got.out)
	}
	// Docker enters as root: the user need not be able to.
	got = shell(t, r, "readlink /proc/self/cwd", func(r *StartRequest) {
		r.Spec.Process.Cwd = "/proc/1/../../root"
		r.User = "app"
	})
	if got.out != "/root\n" {
		t.Errorf("got %q, %q, want /root", got.out, got.err)
	}
}

func TestStandardInput(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	req := request(busybox(t), dockerSpec("/bin/cat"))
	req.Stdin = true
	p, err := r.Start(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Repeat("0123456789abcdef", 1<<16) // 1 MiB, more than a pipe holds
	go func() {
		_, _ = p.Stdin.Write([]byte(text))
		p.Stdin.Close()
	}()
	got := drain(t, p)
	if got.out != text || got.Code != 0 {
		t.Errorf("%d bytes came back of %d, code %d", len(got.out), len(text), got.Code)
	}
	if err := r.Delete(t.Context(), req.ID); err != nil {
		t.Error(err)
	}
	if got := shell(t, r, "cat; echo done"); got.out != "done\n" {
		t.Errorf("without Stdin got %q, want an empty input", got.out)
	}
}

// The user of a container may open its standard streams again, by name.
func TestStandardStreamsBelongToTheUser(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	got := shell(t, r, "echo out > /dev/stdout; echo err > /dev/stderr", func(r *StartRequest) { r.User = "app" })
	if got.out != "out\n" || got.err != "err\n" || got.Code != 0 {
		t.Errorf("got %+v", got)
	}
}

func TestNoDescriptorLeaks(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	for _, init := range []bool{false, true} {
		got := shell(t, r, "ls /proc/$$/fd; echo; ls /proc/1/fd; true", func(r *StartRequest) { r.Init = init })
		own, first, _ := strings.Cut(got.out, "\n\n")
		if strings.Join(strings.Fields(own), " ") != "0 1 2" {
			t.Errorf("init %v: the command has descriptors %q, want 0 to 2 only", init, own)
		}
		if !init && strings.Join(strings.Fields(first), " ") != "0 1 2" {
			t.Errorf("PID 1 has descriptors %q, want 0 to 2 only", first)
		}
	}
}

func TestLimitsAndMask(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	umask, score := uint32(0o027), 500
	got := shell(t, r, "umask; ulimit -n; ulimit -Hn; ulimit -c; cat /proc/self/oom_score_adj", func(r *StartRequest) {
		p := r.Spec.Process
		p.User.Umask, p.OOMScoreAdj = &umask, &score
		p.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 100, Hard: 200}, {Type: "RLIMIT_CORE", Soft: 0, Hard: 0}}
		r.User = "app"
	})
	if got.out != "0027\n100\n200\n0\n500\n" {
		t.Errorf("got %q, %q", got.out, got.err)
	}
	got = shell(t, r, "umask; ulimit -n")
	if got.out != "0022\n1024\n" {
		t.Errorf("by default got %q, want umask 0022 and 1024 files, not what Go raises them to", got.out)
	}
}

func TestHostnameAndEnvironment(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	got := shell(t, r, "hostname; cat /proc/sys/kernel/domainname; env | sort", func(r *StartRequest) {
		r.Spec.Hostname, r.Spec.Domainname = "alpha", "example.org"
		r.Spec.Process.Env = []string{"PATH=/bin", "A=1", "B=two words", "A=2"}
	})
	if got.out != "alpha\nexample.org\nA=2\nB=two words\nHOME=/root\nPATH=/bin\nPWD=/\nSHLVL=1\n" {
		t.Errorf("got %q", got.out)
	}
}

func TestCommandIsLookedUpWithoutPATH(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	req := request(busybox(t), dockerSpec("echo", "found"))
	req.Spec.Process.Env = nil
	if got := run(t, r, req); got.out != "found\n" {
		t.Errorf("got %q", got.out)
	}
}

func TestCapabilities(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	const sets = "grep Cap /proc/self/status | awk '{print $2}'"
	field := func(out string) string { return strings.Join(strings.Fields(out), " ") }

	got := shell(t, r, sets)
	docker := "00000000a80425fb"
	if want := strings.Join([]string{"0000000000000000", docker, docker, docker, "0000000000000000"}, " "); field(got.out) != want {
		t.Errorf("Docker's defaults: got %q, want %q (inheritable permitted effective bounding ambient)", field(got.out), want)
	}
	got = shell(t, r, sets, func(r *StartRequest) { r.User = "app" })
	none := "0000000000000000"
	if want := strings.Join([]string{none, none, none, docker, none}, " "); field(got.out) != want {
		t.Errorf("another user: got %q, want %q", field(got.out), want)
	}
	got = shell(t, r, sets, func(r *StartRequest) {
		one := []string{"CAP_NET_BIND_SERVICE", "CAP_KILL"}
		r.Spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: dockerCaps, Effective: one, Permitted: one, Inheritable: one, Ambient: one[:1]}
		r.User = "app"
	})
	both, ambient := "0000000000000420", "0000000000000400"
	if want := strings.Join([]string{both, ambient, ambient, docker, ambient}, " "); field(got.out) != want {
		t.Errorf("ambient: got %q, want %q", field(got.out), want)
	}
	got = shell(t, r, sets, func(r *StartRequest) { r.Spec.Process.Capabilities = nil })
	if want := strings.Join([]string{none, none, none, none, none}, " "); field(got.out) != want {
		t.Errorf("no capabilities: got %q, want %q", field(got.out), want)
	}
}

func TestNoNewPrivileges(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	for _, set := range []bool{false, true} {
		got := shell(t, r, "awk '/NoNewPrivs/{print $2}' /proc/self/status", func(r *StartRequest) { r.Spec.Process.NoNewPrivileges = set })
		if want := map[bool]string{false: "0\n", true: "1\n"}[set]; got.out != want {
			t.Errorf("NoNewPrivileges %v: got %q, want %q", set, got.out, want)
		}
	}
}

func TestRequestsThatCannotBe(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	root := busybox(t)
	linux := func(change func(*specs.Linux)) func(*specs.Spec) {
		return func(s *specs.Spec) { change(s.Linux) }
	}
	mount := func(m specs.Mount) func(*specs.Spec) {
		return func(s *specs.Spec) { s.Mounts = append(append([]specs.Mount(nil), s.Mounts...), m) }
	}
	for name, change := range map[string]func(*specs.Spec){
		"hooks":                func(s *specs.Spec) { s.Hooks = &specs.Hooks{} },
		"no linux part":        func(s *specs.Spec) { s.Linux = nil },
		"user namespace":       linux(func(l *specs.Linux) { l.UIDMappings = []specs.LinuxIDMapping{{Size: 1}} }),
		"time namespace":       linux(func(l *specs.Linux) { l.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {}} }),
		"unknown namespace":    linux(func(l *specs.Linux) { l.Namespaces = append(l.Namespaces, specs.LinuxNamespace{Type: "user"}) }),
		"namespace twice":      linux(func(l *specs.Linux) { l.Namespaces = append(l.Namespaces, l.Namespaces[0]) }),
		"no mount namespace":   linux(func(l *specs.Linux) { l.Namespaces = l.Namespaces[:1] }),
		"hostname without uts": linux(func(l *specs.Linux) { l.Namespaces = l.Namespaces[:3] }),
		"seccomp not compiled": linux(func(l *specs.Linux) { l.Seccomp = &specs.LinuxSeccomp{} }),
		"seccomp not base64":   func(s *specs.Spec) { s.Annotations = map[string]string{SeccompAnnotation: "!"} },
		"seccomp cut off":      func(s *specs.Spec) { s.Annotations = map[string]string{SeccompAnnotation: "AAAA"} },
		"propagation":          linux(func(l *specs.Linux) { l.RootfsPropagation = "sideways" }),
		"personality":          linux(func(l *specs.Linux) { l.Personality = &specs.LinuxPersonality{Domain: "BSD"} }),
		"device type":          linux(func(l *specs.Linux) { l.Devices = []specs.LinuxDevice{{Path: "/dev/x", Type: "z"}} }),
		"device rule": linux(func(l *specs.Linux) {
			l.Resources = &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Type: "z"}}}
		}),
		"device access": linux(func(l *specs.Linux) {
			l.Resources = &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Access: "x"}}}
		}),
		"unified escape": linux(func(l *specs.Linux) { l.Resources = &specs.LinuxResources{Unified: map[string]string{"../x.y": "1"}} }),
		"rdma":           linux(func(l *specs.Linux) { l.Resources = &specs.LinuxResources{Rdma: map[string]specs.LinuxRdma{"x": {}}} }),
		"capability": func(s *specs.Spec) {
			s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: []string{"CAP_MAGIC"}}
		},
		"rlimit":             func(s *specs.Spec) { s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_MAGIC"}} },
		"rlimit order":       func(s *specs.Spec) { s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_CORE", Soft: 2, Hard: 1}} },
		"scheduler":          func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{} },
		"relative mount":     mount(specs.Mount{Destination: "x", Type: "tmpfs"}),
		"mount on the root":  mount(specs.Mount{Destination: "/./", Type: "tmpfs"}),
		"mount without type": mount(specs.Mount{Destination: "/x"}),
		"option of a bind":   mount(specs.Mount{Destination: "/x", Source: "/tmp", Options: []string{"rbind", "size=1"}}),
		"id-mapped mount":    mount(specs.Mount{Destination: "/x", Type: "tmpfs", UIDMappings: []specs.LinuxIDMapping{{Size: 1}}}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			req := request(root, dockerSpec("true"))
			change(req.Spec)
			if _, err := tryRun(t, r, req); !errors.Is(err, ErrInvalid) {
				t.Errorf("got %v, want ErrInvalid", err)
			}
		})
	}
}

// What only the kernel can refuse comes back with the step, the object and the errno.
func TestRefusalsOfTheKernel(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	root := busybox(t)
	mount := func(m specs.Mount) func(*StartRequest) {
		return func(r *StartRequest) { r.Spec.Mounts = append(append([]specs.Mount(nil), r.Spec.Mounts...), m) }
	}
	for _, tc := range []struct {
		name     string
		change   func(*StartRequest)
		errno    syscall.Errno
		sentence string
	}{
		{"unknown file system", mount(specs.Mount{Destination: "/x", Type: "nofs"}), unix.ENODEV, `mounting nofs on /x: file system "nofs"`},
		{"unknown option", mount(specs.Mount{Destination: "/x", Type: "tmpfs", Options: []string{"magic=1"}}), unix.EINVAL, `option "magic=1"`},
		{"missing bind source", mount(specs.Mount{Destination: "/x", Source: "/no/such/source", Options: []string{"bind"}}), unix.ENOENT, "/no/such/source"},
		{"folder on a file", mount(specs.Mount{Destination: "/etc/passwd", Source: "/tmp", Options: []string{"bind"}}), unix.ENOTDIR, "/etc/passwd"},
		{"sysctl", func(r *StartRequest) { r.Spec.Linux.Sysctl = map[string]string{"no.such": "1"} }, unix.ENOENT, "setting sysctl no.such"},
		{"missing root", func(r *StartRequest) { r.RootFS.Dir = "/no/such/root" }, unix.ENOENT, "/no/such/root"},
		{"missing image", func(r *StartRequest) { r.RootFS = RootFS{ImageDevice: "/dev/no-such-image"} }, unix.ENOENT, "image device"},
		{"missing namespace", func(r *StartRequest) { r.Spec.Linux.Namespaces[2].Path = "/no/such/ipc" }, unix.ENOENT, "/no/such/ipc"},
		{"missing pid namespace", func(r *StartRequest) { r.Spec.Linux.Namespaces[0].Path = "/no/such/pid" }, unix.ENOENT, "pid namespace"},
		{"wrong namespace", func(r *StartRequest) { r.Spec.Linux.Namespaces[2].Path = "/proc/self/ns/uts" }, unix.EINVAL, "joining the ipc namespace"},
		{"bad seccomp filter", func(r *StartRequest) { r.Spec.Annotations = map[string]string{SeccompAnnotation: "//////////8="} }, unix.EINVAL, "installing the seccomp filter"},
		{"terminal without devpts", func(r *StartRequest) { r.Spec.Mounts = r.Spec.Mounts[:2]; r.Spec.Process.Terminal = true }, unix.ENOENT, "terminal"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			req := request(root, dockerSpec("true"))
			tc.change(&req)
			_, err := tryRun(t, r, req)
			if !errors.Is(err, tc.errno) || !strings.Contains(err.Error(), tc.sentence) {
				t.Errorf("got %v, want %v with %q", err, tc.errno, tc.sentence)
			}
		})
	}
	if _, err := tryRun(t, r, StartRequest{ID: "dev", Spec: dockerSpec("true"), RootFS: RootFS{ImageDevice: "/dev/null"}}); !errors.Is(err, ErrInvalid) {
		t.Errorf("a character device as image: got %v, want ErrInvalid", err)
	}
}
