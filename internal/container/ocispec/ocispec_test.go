// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package ocispec

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	agentv1 "github.com/micropod/micropod/api/agent/v1"
)

var rewrite = flag.Bool("rewrite", false, "write what Build makes into the golden files")

// golden is one file: what a user asks, and what comes of it.
type golden struct {
	Comment  string `json:"comment"`
	Image    imagespec.ImageConfig
	Config   Config
	Spec     *specs.Spec `json:",omitempty"`
	Files    map[string]string
	User     string
	GroupAdd []string `json:",omitempty"`
	Init     bool     `json:",omitempty"`
	Stop     string
	Seccomp  bool // a filter is there; its bytes are internal/container/seccomp's affair
}

const testID = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// TestGolden makes the bundle of each testdata/*.json and compares it with what the file says; -rewrite
// writes it there, to be read as a diff.
func TestGolden(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) < 8 {
		t.Fatalf("%d golden files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".json"), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var want golden
			d := json.NewDecoder(bytes.NewReader(text))
			d.DisallowUnknownFields()
			if err := d.Decode(&want); err != nil {
				t.Fatal(err)
			}
			got := makeGolden(t, want)
			if *rewrite {
				out, err := json.MarshalIndent(got, "", "  ")
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, append(out, '\n'), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("-want +got (go test -rewrite writes it):\n%s", diff)
			}
		})
	}
}

func makeGolden(t *testing.T, in golden) golden {
	t.Helper()
	b, err := Build(Input{ID: testID, Image: in.Image, Config: in.Config})
	if err != nil {
		t.Fatal(err)
	}
	out := golden{
		Comment: in.Comment, Image: in.Image, Config: in.Config, Files: map[string]string{},
		User: b.User, GroupAdd: b.GroupAdd, Init: b.Init, Stop: unix.SignalName(b.StopSignal),
	}
	var spec specs.Spec // as the agent reads it
	if err := json.Unmarshal(b.JSON, &spec); err != nil {
		t.Fatal(err)
	}
	_, out.Seccomp = spec.Annotations[agentv1.AnnotationSeccompBPF]
	delete(spec.Annotations, agentv1.AnnotationSeccompBPF)
	if len(spec.Annotations) == 0 {
		spec.Annotations = nil
	}
	out.Spec = &spec
	for _, f := range b.Files {
		out.Files[f.Path] = string(f.Content)
	}
	return out
}

func build(c Config) (*Bundle, error) {
	return Build(Input{ID: testID, Image: imagespec.ImageConfig{Cmd: []string{"sh"}}, Config: c})
}

func TestCommandLine(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		image  imagespec.ImageConfig
		config Config
		want   string
	}{
		"image's own":                       {imagespec.ImageConfig{Entrypoint: []string{"e"}, Cmd: []string{"c"}}, Config{}, "e c"},
		"command replaces Cmd":              {imagespec.ImageConfig{Entrypoint: []string{"e"}, Cmd: []string{"c"}}, Config{Command: []string{"x", "y"}}, "e x y"},
		"entrypoint makes Cmd void":         {imagespec.ImageConfig{Entrypoint: []string{"e"}, Cmd: []string{"c"}}, Config{EntrypointSet: true, Entrypoint: []string{"n"}}, "n"},
		"empty entrypoint":                  {imagespec.ImageConfig{Entrypoint: []string{"e"}, Cmd: []string{"c"}}, Config{EntrypointSet: true, Command: []string{"x"}}, "x"},
		"empty entrypoint leaves no Cmd":    {imagespec.ImageConfig{Entrypoint: []string{"e"}, Cmd: []string{"c"}}, Config{EntrypointSet: true}, ""},
		"nothing":                           {imagespec.ImageConfig{}, Config{}, ""},
		"an empty program":                  {imagespec.ImageConfig{}, Config{Command: []string{"", "x"}}, ""},
		"an empty argument is an argument":  {imagespec.ImageConfig{}, Config{Command: []string{"a", ""}}, "a "},
		"a NUL byte cannot be passed on":    {imagespec.ImageConfig{}, Config{Command: []string{"a\x00b"}}, ""},
		"neither in what the image brought": {imagespec.ImageConfig{Cmd: []string{"a\x00b"}}, Config{}, ""},
	} {
		b, err := Build(Input{ID: testID, Image: test.image, Config: test.config})
		var invalid *InvalidError
		if test.want == "" && !errors.As(err, &invalid) {
			t.Errorf("%s: got %v, want an InvalidError", name, err)
		}
		if test.want != "" && (err != nil || strings.Join(b.Spec.Process.Args, " ") != test.want) {
			t.Errorf("%s: got %v, %v; want %q", name, b, err, test.want)
		}
	}
}

func TestEnvironment(t *testing.T) {
	t.Parallel()
	b, err := Build(Input{ID: testID, Image: imagespec.ImageConfig{Cmd: []string{"sh"}, Env: []string{"PATH=/p", "A=image", "B=image", "C=image"}},
		Config: Config{TTY: true, Env: []string{"B=user", "C", "D=a=b", "E="}}})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"PATH=/p", "HOSTNAME=0123456789ab", "TERM=xterm", "A=image", "B=user", "D=a=b", "E="}
	if !slices.Equal(b.Spec.Process.Env, want) {
		t.Errorf("the environment is %q, want %q", b.Spec.Process.Env, want)
	}
}

func TestCapabilities(t *testing.T) {
	t.Parallel()
	all := len(allCapabilities)
	for name, test := range map[string]struct {
		c         Config
		count     int
		has, lack []string
	}{
		"default":                {Config{}, 14, []string{"CAP_CHOWN"}, []string{"CAP_SYS_ADMIN"}},
		"add":                    {Config{CapAdd: []string{"sys_admin", "CAP_NET_ADMIN", "SYS_ADMIN"}}, 16, []string{"CAP_SYS_ADMIN", "CAP_NET_ADMIN"}, nil},
		"drop":                   {Config{CapDrop: []string{"chown"}}, 13, nil, []string{"CAP_CHOWN"}},
		"drop what is added":     {Config{CapAdd: []string{"sys_admin"}, CapDrop: []string{"sys_admin"}}, 14, nil, []string{"CAP_SYS_ADMIN"}},
		"drop all":               {Config{CapDrop: []string{"ALL"}}, 0, nil, nil},
		"drop all, add one":      {Config{CapDrop: []string{"all"}, CapAdd: []string{"CHOWN"}}, 1, []string{"CAP_CHOWN"}, nil},
		"add all":                {Config{CapAdd: []string{"ALL"}}, all, []string{"CAP_SYS_ADMIN", "CAP_BPF"}, nil},
		"add all, drop one":      {Config{CapAdd: []string{"ALL"}, CapDrop: []string{"SYS_ADMIN"}}, all - 1, nil, []string{"CAP_SYS_ADMIN"}},
		"privileged":             {Config{Privileged: true}, all, []string{"CAP_SYS_ADMIN"}, nil},
		"privileged drops none":  {Config{Privileged: true, CapDrop: []string{"ALL"}}, all, nil, nil},
		"default added to twice": {Config{CapAdd: []string{"CHOWN"}}, 14, nil, nil},
	} {
		caps, err := capabilities(test.c)
		if err != nil || len(caps) != test.count || !slices.IsSorted(caps) {
			t.Errorf("%s: %d capabilities %v, %v; want %d sorted", name, len(caps), caps, err, test.count)
		}
		for _, c := range test.has {
			if !slices.Contains(caps, c) {
				t.Errorf("%s: lacks %s", name, c)
			}
		}
		for _, c := range test.lack {
			if slices.Contains(caps, c) {
				t.Errorf("%s: has %s", name, c)
			}
		}
	}
}

// TestInvalid: what cannot be carried out is refused with the flag's name, before anything is made.
func TestInvalid(t *testing.T) {
	t.Parallel()
	for field, configs := range map[string][]Config{
		"--cap-add":              {{CapAdd: []string{"FLY"}}},
		"--cap-drop":             {{CapDrop: []string{"CAP_"}}},
		"--workdir":              {{WorkingDir: "relative"}, {WorkingDir: "/a\x00"}},
		"--env":                  {{Env: []string{"=x"}}, {Env: []string{"A=\x00"}}},
		"--user":                 {{User: ":"}, {User: "a:b:c"}, {User: "a:"}, {User: "a\nb"}, {User: strings.Repeat("u", 300)}},
		"--group-add":            {{GroupAdd: []string{""}}, {GroupAdd: []string{"a:b"}}},
		"--hostname":             {{Hostname: "-x"}, {Hostname: strings.Repeat("h", 65)}, {Hostname: "a b"}},
		"--domainname":           {{Domainname: "a_b"}},
		"--tmpfs":                {{Tmpfs: map[string]string{"tmp": ""}}, {Tmpfs: map[string]string{"/": ""}}, {Tmpfs: map[string]string{"/proc/": ""}}},
		"--tmpfs option":         {{Tmpfs: map[string]string{"/t": "size=big"}}, {Tmpfs: map[string]string{"/t": "bind"}}, {Tmpfs: map[string]string{"/t": "ro=1"}}},
		"--device":               {{Devices: []Device{{GuestPath: "/etc/passwd"}}}, {Devices: []Device{{GuestPath: "/dev/../etc"}}}, {Devices: []Device{{GuestPath: "/dev/a", ContainerPath: "b"}}}, {Devices: []Device{{GuestPath: "/dev/a", Permissions: "x"}}}},
		"--sysctl":               {{Sysctls: map[string]string{"nodot": "1"}}, {Sysctls: map[string]string{"net/../../x": "1"}}},
		"--sysctl kernel.msgmax": {{Sysctls: map[string]string{"kernel.msgmax": "1\n2"}}},
		"--ulimit":               {{Ulimits: []Ulimit{{"files", 1, 1}}}, {Ulimits: []Ulimit{{"nofile", 2, 1}}}, {Ulimits: []Ulimit{{"nofile", -1, 5}}}, {Ulimits: []Ulimit{{"nofile", -2, 5}}}},
		"--memory":               {{Resources: Resources{MemoryBytes: 1 << 20}}, {Resources: Resources{MemoryBytes: -1}}},
		"--memory-swap":          {{Resources: Resources{MemorySwapBytes: 1 << 30}}, {Resources: Resources{MemorySwapBytes: -2}}, {Resources: Resources{MemoryBytes: 1 << 30, MemorySwapBytes: 1 << 29}}},
		"--cpus":                 {{Resources: Resources{NanoCPUs: -1}}, {Resources: Resources{NanoCPUs: 1}}},
		"--cpu-shares":           {{Resources: Resources{CPUShares: 1}}, {Resources: Resources{CPUShares: 1 << 20}}},
		"--cpuset-cpus":          {{Resources: Resources{CpusetCPUs: "a"}}, {Resources: Resources{CpusetCPUs: "0-"}}},
		"--pids-limit":           {{Resources: Resources{PidsLimit: -2}}},
		"--shm-size":             {{Resources: Resources{ShmBytes: 1}}},
		"--oom-score-adj":        {{OOMScoreAdj: 1001}, {OOMScoreAdj: -1001}},
		"--security-opt": {{SecurityOpt: []string{"apparmor=docker-default"}}, {SecurityOpt: []string{"label=type:x"}}, {SecurityOpt: []string{"nonsense"}},
			{SecurityOpt: []string{"no-new-privileges=maybe"}}, {SecurityOpt: []string{"seccomp="}}},
		"--security-opt seccomp":  {{SecurityOpt: []string{"seccomp={}x"}}, {SecurityOpt: []string{"seccomp=/etc/profile.json"}}},
		"--stop-signal":           {{StopSignal: "SIGWHAT"}, {StopSignal: "65"}, {StopSignal: "0"}, {StopSignal: "RTMAX-64"}},
		"--add-host":              {{ExtraHosts: []string{"db"}}, {ExtraHosts: []string{"db:nowhere"}}, {ExtraHosts: []string{":1.2.3.4"}}, {ExtraHosts: []string{"a b:1.2.3.4"}}},
		"--dns":                   {{DNS: []string{"nine"}}},
		"--dns-search":            {{DNSSearch: []string{"a\nnameserver 6.6.6.6"}}, {DNSSearch: slices.Repeat([]string{"a"}, 65)}},
		"--dns-option":            {{DNSOptions: []string{""}}},
		"--annotation":            {{Annotations: map[string]string{agentv1.AnnotationSeccompBPF: "AAAA"}}, {Annotations: map[string]string{agentv1.AnnotationDevices: "[]"}}},
		"container configuration": {{Env: []string{"A=" + strings.Repeat("x", 1<<20)}}},
	} {
		for _, c := range configs {
			b, err := build(c)
			var invalid *InvalidError
			if b != nil || !errors.As(err, &invalid) || invalid.Field != field {
				t.Errorf("%+v: got %v, want an InvalidError of %s", c, err, field)
				continue
			}
			if len(err.Error()) > 400 {
				t.Errorf("%s: the error has %d bytes; it must not repeat whatever was given", field, len(err.Error()))
			}
		}
	}
}

func TestSignals(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]unix.Signal{
		"": unix.SIGTERM, "KILL": 9, "SIGKILL": 9, "sigkill": 9, "9": 9, "RTMIN": 34, "SIGRTMIN+3": 37, "rtmax": 64, "RTMAX-1": 63, "64": 64,
	} {
		if got, err := ParseSignal("--signal", text, unix.SIGTERM); err != nil || got != want {
			t.Errorf("%q is %d, %v; want %d", text, got, err, want)
		}
	}
}

func TestSecurityOptions(t *testing.T) {
	t.Parallel()
	filtered := func(c Config) bool {
		b, err := build(c)
		if err != nil {
			t.Fatal(err)
		}
		return b.Spec.Annotations[agentv1.AnnotationSeccompBPF] != ""
	}
	const profile = `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_ERRNO"}]}`
	for name, test := range map[string]struct {
		c    Config
		want bool
	}{
		"default":                  {Config{}, true},
		"builtin":                  {Config{SecurityOpt: []string{"seccomp=builtin"}}, true},
		"unconfined":               {Config{SecurityOpt: []string{"seccomp=unconfined"}}, false},
		"unconfined, older form":   {Config{SecurityOpt: []string{"seccomp:unconfined"}}, false},
		"privileged":               {Config{Privileged: true}, false},
		"privileged with profile":  {Config{Privileged: true, SecurityOpt: []string{"seccomp=" + profile}}, true},
		"profile":                  {Config{SecurityOpt: []string{"seccomp=" + profile}}, true},
		"what asks for no modules": {Config{SecurityOpt: []string{"label=disable", "apparmor=unconfined"}}, true},
	} {
		if got := filtered(test.c); got != test.want {
			t.Errorf("%s: a filter is there: %t, want %t", name, got, test.want)
		}
	}
	b, err := build(Config{SecurityOpt: []string{"no-new-privileges", "systempaths=unconfined"}})
	if err != nil || !b.Spec.Process.NoNewPrivileges || b.Spec.Linux.MaskedPaths != nil || b.Spec.Linux.ReadonlyPaths != nil {
		t.Errorf("got %+v, %v; want no_new_privs and open system paths", b, err)
	}
	b, err = build(Config{SecurityOpt: []string{"no-new-privileges:true", "no-new-privileges=false"}})
	if err != nil || b.Spec.Process.NoNewPrivileges {
		t.Errorf("the last no-new-privileges must count: %v", err)
	}
	b, err = build(Config{SecurityOpt: []string{`seccomp={"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdri"],"action":"SCMP_ACT_ERRNO"}]}`}})
	if err != nil || len(b.Warnings) != 1 {
		t.Errorf("a rule without effect gave warnings %q, %v; want one", b.Warnings, err)
	}
}

func TestProcess(t *testing.T) {
	t.Parallel()
	b, err := build(Config{User: "app", GroupAdd: []string{"audio"}, Env: []string{"A=1"}, WorkingDir: "/w", OOMScoreAdj: 5, SecurityOpt: []string{"no-new-privileges"}})
	if err != nil {
		t.Fatal(err)
	}
	e, err := Process(b, ExecConfig{Command: []string{"ls", "-l"}, Env: []string{"A=2", "B=3"}, TTY: true, Rows: 24, Cols: 80})
	if err != nil {
		t.Fatal(err)
	}
	p := e.Process
	if e.User != "app" || !slices.Equal(e.GroupAdd, []string{"audio"}) || p.Cwd != "/w" || !p.Terminal || p.ConsoleSize.Width != 80 ||
		!p.NoNewPrivileges || *p.OOMScoreAdj != 5 || len(p.Capabilities.Effective) != 14 {
		t.Errorf("the process is %+v as %q; want what the container has", p, e.User)
	}
	if want := []string{"PATH=" + defaultPath, "HOSTNAME=0123456789ab", "A=2", "TERM=xterm", "B=3"}; !slices.Equal(p.Env, want) {
		t.Errorf("its environment is %q, want %q", p.Env, want)
	}
	if slices.Contains(b.Spec.Process.Env, "A=2") {
		t.Error("the container's own environment was changed")
	}
	e, err = Process(b, ExecConfig{Command: []string{"id"}, User: "0:0", WorkingDir: "/x/../y", Privileged: true})
	if err != nil || e.User != "0:0" || e.Process.Cwd != "/y" || len(e.Process.Capabilities.Effective) != len(allCapabilities) || e.Process.ConsoleSize != nil {
		t.Errorf("the privileged process is %+v, %v", e, err)
	}
	for name, c := range map[string]ExecConfig{
		"no command": {}, "NUL": {Command: []string{"a\x00"}}, "env": {Command: []string{"a"}, Env: []string{"=1"}}, "user": {Command: []string{"a"}, User: ":"},
		"dir": {Command: []string{"a"}, WorkingDir: "b"}, "size": {Command: []string{strings.Repeat("a", 1<<20)}},
	} {
		var invalid *InvalidError
		if _, err := Process(b, c); !errors.As(err, &invalid) {
			t.Errorf("%s: got %v, want an InvalidError", name, err)
		}
	}
}

// TestInputIsLeftAlone: records keep what Build was given.
func TestInputIsLeftAlone(t *testing.T) {
	t.Parallel()
	in := Input{ID: testID, Image: imagespec.ImageConfig{Cmd: []string{"sh"}, Env: []string{"A=1"}},
		Config: Config{Env: []string{"A=2"}, CapAdd: []string{"sys_admin"}, Annotations: map[string]string{"k": "v"}, Devices: []Device{{GuestPath: "/dev/fuse"}}}}
	before, _ := json.Marshal(in)
	if _, err := Build(in); err != nil {
		t.Fatal(err)
	}
	if after, _ := json.Marshal(in); !bytes.Equal(before, after) {
		t.Errorf("Build changed its input from\n%s\nto\n%s", before, after)
	}
}
