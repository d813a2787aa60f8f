// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func env(pairs ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1]
			}
		}
		return ""
	}
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	o := Options{Getenv: env(), DefaultFile: "/nowhere/config.toml"}
	c, err := o.Load()
	if err != nil {
		t.Fatal(err)
	}
	if c.DataDir != DefaultDataDir || c.Socket() != "/run/micropod/micropod.sock" || c.PIDFile() != "/run/micropod/micropodd.pid" {
		t.Errorf("default places are %s, %s, %s", c.DataDir, c.Socket(), c.PIDFile())
	}
	if c.Memory != 512<<20 || c.VCPUs != 1 || c.LogLevel != slog.LevelInfo || !c.StartsDaemon() || c.File != "" {
		t.Errorf("defaults are %+v", c)
	}
	if want := []string{"--data-dir", DefaultDataDir, "--run-dir", DefaultRunDir}; !slices.Equal(c.DaemonArgs(), want) {
		t.Errorf("DaemonArgs are %q, want %q", c.DaemonArgs(), want)
	}
}

func TestPrecedence(t *testing.T) {
	t.Parallel()
	file := write(t, "data_dir = '/file'\nrun_dir = '/file'\nhost = '/file/sock'\nlog_level = 'warn'")
	for name, c := range map[string]struct {
		args []string
		env  []string
		want string
	}{
		"file":                     {nil, nil, "/file"},
		"environment over file":    {nil, []string{"MICROPOD_DATA_DIR", "/env", "MICROPOD_RUN_DIR", "/env", "MICROPOD_HOST", "unix:///env/sock"}, "/env"},
		"flag over both":           {[]string{"--data-dir=/flag", "--run-dir=/flag", "-H", "unix:///flag/sock"}, []string{"MICROPOD_DATA_DIR", "/env", "MICROPOD_RUN_DIR", "/env", "MICROPOD_HOST", "/env/sock"}, "/flag"},
		"flag over file by itself": {[]string{"--data-dir=/flag", "--run-dir=/flag", "--host=/flag/sock"}, nil, "/flag"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := Options{Getenv: env(append(c.env, "MICROPOD_CONFIG", file)...)}
			flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
			o.AddFlags(flags)
			if err := flags.Parse(c.args); err != nil {
				t.Fatal(err)
			}
			got, err := o.Load()
			if err != nil {
				t.Fatal(err)
			}
			if got.DataDir != c.want || got.RunDir != c.want || got.Socket() != c.want+"/sock" {
				t.Errorf("got data %s, run %s, socket %s; want all of %s", got.DataDir, got.RunDir, got.Socket(), c.want)
			}
			if got.StartsDaemon() {
				t.Error("a client with a host of its own says it starts daemons")
			}
			if got.ListenSocket() != c.want+"/micropod.sock" {
				t.Errorf("the daemon would listen on %s: the host setting is the client's", got.ListenSocket())
			}
			if !slices.Contains(got.DaemonArgs(), file) || got.LogLevel != slog.LevelWarn {
				t.Errorf("DaemonArgs %q, level %v: want the file's", got.DaemonArgs(), got.LogLevel)
			}
		})
	}
}

func TestFileSettings(t *testing.T) {
	t.Parallel()
	o := Options{Getenv: env(), File: write(t, `
kernel = "/boot/k"
qemu = "/opt/qemu"
agent = "/opt/agent"
engine = "qemu"
firecracker = "/opt/firecracker"
jailer = "/opt/jailer"
unjailed = true
insecure_registries = ["reg:5000"]
default_memory = "1g"
default_vcpus = 2
default_scratch = "20g"
default_network = "none"
uid_first = 100000
uid_count = 10
pool_min = 1
pool_max = 3
pool_memory = "256m"
otlp_endpoint = "http://localhost:4318"
[mirrors]
"docker.io" = ["mirror.local"]
[image_limits]
bytes = "2g"
ratio = 50
entries = 1000
names = "1m"
memory = "300m"
time = "90s"
`)}
	c, err := o.Load()
	if err != nil {
		t.Fatal(err)
	}
	want := &Config{
		File: o.File, DataDir: DefaultDataDir, RunDir: DefaultRunDir, Kernel: "/boot/k", QEMU: "/opt/qemu", Agent: "/opt/agent",
		Engine: "qemu", Firecracker: "/opt/firecracker", Jailer: "/opt/jailer", Unjailed: true,
		InsecureRegistries: []string{"reg:5000"}, Mirrors: map[string][]string{"docker.io": {"mirror.local"}},
		ImageLimits: ImageLimits{Bytes: 2 << 30, Ratio: 50, Entries: 1000, Names: 1 << 20, Memory: 300 << 20, Time: 90 * time.Second},
		Memory:      1 << 30, VCPUs: 2, Scratch: 20 << 30, Network: "none", UIDFirst: 100000, UIDCount: 10,
		PoolMin: 1, PoolMax: 3, PoolMemory: 256 << 20, OTLPEndpoint: "http://localhost:4318",
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ file, want string }{
		"misspelt":       {"kernal = '/x'", `did you mean "kernel"?`},
		"upper case":     {"Data_Dirs = '/x'", `did you mean "data_dir"?`},
		"unheard of":     {"colour_of_the_sky = 'blue'", "known are data_dir"},
		"unknown table":  {"[network]\nbridge = 'x'", `unknown setting "network`},
		"wrong type":     {"default_vcpus = 'two'", "default_vcpus"},
		"broken":         {"a = = b", "line 1"},
		"size":           {"default_memory = 'lots'", "default_memory is \"lots\""},
		"image size":     {"[image_limits]\nbytes = 'lots'", "image_limits.bytes is \"lots\""},
		"image time":     {"[image_limits]\ntime = 'long'", "image_limits.time is \"long\""},
		"image below 0":  {"[image_limits]\nratio = -1", "below 0"},
		"image misspelt": {"[image_limits]\nsize = '1g'", "image_limits.size"},
		"small memory":   {"default_memory = '1m'", "at least 128m"},
		"small scratch":  {"default_scratch = '1k'", "at least 16m"},
		"vcpus":          {"default_vcpus = -1", "default_vcpus is -1"},
		"uid of root":    {"uid_first = 1", "uid_first 1"},
		"uids too many":  {"uid_count = 2147483647", "below 2147483648"},
		"level":          {"log_level = 'loud'", "none of debug"},
		"remote host":    {"host = 'tcp://1.2.3.4'", "no unix:///PATH"},
		"relative host":  {"host = 'sock'", "no unix:///PATH"},
		"run dir length": {"run_dir = '/" + strings.Repeat("x", 100) + "'", "too long"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := Options{Getenv: env(), File: write(t, c.file)}
			got, err := o.Load()
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Load gave %v, %v; want an error with %q", got, err, c.want)
			}
		})
	}
	o := Options{Getenv: env(), File: "/nowhere/at/all.toml"}
	if _, err := o.Load(); err == nil {
		t.Error("a named file that is missing was no error")
	}
}

func TestEveryKeyIsKnown(t *testing.T) {
	t.Parallel()
	var tags []string
	for f := range reflect.TypeFor[settings]().Fields() {
		tags = append(tags, f.Tag.Get("toml"))
	}
	if !slices.Equal(tags, keys) {
		t.Errorf("the suggestions know %v, the file %v", keys, tags)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("kernel = '/x'\n[mirrors]\na = ['b']")
	f.Add("kernal = 1")
	f.Fuzz(func(t *testing.T, text string) {
		_, _ = parse([]byte(text))
	})
}
