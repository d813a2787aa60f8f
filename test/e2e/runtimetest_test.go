// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/micropod/micropod/test/judge"
)

// judged is a container by its flags, and what the OCI runtime spec would say of it, written down here
// and not asked of micropod.
type judged struct {
	flags  []string
	change func(*specs.Spec)
}

var judgedContainers = map[string]judged{
	"defaults": {nil, func(*specs.Spec) {}},
	"rich": {
		[]string{
			"--hostname", "judged", "--domainname", "example.org", "-e", "ONE=1", "-e", "TWO=two words",
			"--ulimit", "nofile=1000:1000", "--ulimit", "core=0:0", "--ulimit", "cpu=1000:2000", "--ulimit", "stack=4194304:67108864",
			"--oom-score-adj", "100", "--security-opt", "no-new-privileges", "--tmpfs", "/tmp/extra:nosuid,size=1m",
			"--sysctl", "kernel.shmmni=4000", "--cap-drop", "NET_RAW", "--cap-add", "SYS_NICE", "--group-add", "20",
		},
		func(s *specs.Spec) {
			score := 100
			s.Hostname, s.Domainname = "judged", "example.org"
			s.Process.Env = append(s.Process.Env, "ONE=1", "TWO=two words")
			s.Process.Rlimits = []specs.POSIXRlimit{
				{Type: "RLIMIT_NOFILE", Soft: 1000, Hard: 1000}, {Type: "RLIMIT_CORE"},
				{Type: "RLIMIT_CPU", Soft: 1000, Hard: 2000}, {Type: "RLIMIT_STACK", Soft: 4 << 20, Hard: 64 << 20},
			}
			s.Process.OOMScoreAdj, s.Process.NoNewPrivileges = &score, true
			s.Process.User.AdditionalGids = []uint32{20}
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/tmp/extra", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "size=1m"}})
			s.Linux.Sysctl = map[string]string{"kernel.shmmni": "4000"}
			caps := slices.DeleteFunc(slices.Clone(dockerCapabilities), func(c string) bool { return c == "CAP_NET_RAW" })
			grant(s, append(caps, "CAP_SYS_NICE"))
		},
	},
	"another user, read-only, terminal": {
		[]string{"-u", "1000:1001", "--read-only", "-t", "--cap-drop", "ALL"},
		func(s *specs.Spec) {
			s.Process.User = specs.User{UID: 1000, GID: 1001}
			s.Root.Readonly, s.Process.Terminal = true, true
			s.Process.Capabilities = &specs.LinuxCapabilities{}
		},
	},
}

// dockerCapabilities are what Docker's documentation lists as granted by default.
var dockerCapabilities = []string{
	"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD", "CAP_NET_BIND_SERVICE",
	"CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
}

func grant(s *specs.Spec, caps []string) {
	s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
}

// byDefault is what Docker's documentation promises of a container of the image below without any flags.
func byDefault(folder string) *specs.Spec {
	s := judge.Spec()
	s.Hostname, s.Domainname = "", "" // chosen by micropod
	s.Process = &specs.Process{
		Args: []string{judge.Binary, "--path", "."}, Cwd: folder,
		Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/"},
	}
	grant(s, dockerCapabilities)
	s.Mounts = slices.DeleteFunc(s.Mounts, func(m specs.Mount) bool { return m.Destination == "/tmp/extra" })
	notOurs := func(path string) bool { return !strings.HasPrefix(path, "/proc/") && !strings.HasPrefix(path, "/sys/") }
	s.Linux.MaskedPaths = slices.DeleteFunc(s.Linux.MaskedPaths, notOurs)
	s.Linux.ReadonlyPaths = slices.DeleteFunc(s.Linux.ReadonlyPaths, notOurs)
	s.Linux.Devices, s.Linux.Sysctl = nil, nil
	return s
}

// TestRuntimetestAgrees: opencontainers/runtime-tools' runtimetest, run inside containers, finds what their flags promise.
func TestRuntimetestAgrees(t *testing.T) {
	t.Parallel()
	folders, archive := judgesImage(t)
	image := "runtimetest:e2e"
	if r := shared.runIn(t, archive, "image", "import", "--name", image, "-"); r.code != 0 {
		t.Fatalf("importing the image: %s", r.stderr)
	}
	t.Cleanup(func() {
		if r := shared.command(context.Background(), nil, "rmi", image); r.code != 0 {
			t.Errorf("removing the image: %s", r)
		}
	})
	for name, c := range judgedContainers {
		t.Run(name, func(t *testing.T) {
			args := slices.Concat([]string{"run", "--rm", "-w", folders[name]}, c.flags, []string{image, judge.Binary, "--path", "."})
			r := shared.run(t, args...)
			verdict, err := judge.Verdict(r.stdout)
			if err != nil {
				t.Fatalf("%v\n%s", err, r.stderr)
			}
			if len(verdict.Failed) > 0 || r.code != 0 || verdict.Passed < 150 {
				t.Errorf("%d passed, %d skipped, code %d, failed:\n%s", verdict.Passed, verdict.Skipped, r.code, strings.Join(verdict.Failed, "\n"))
			}
			t.Logf("%d passed, %d skipped", verdict.Passed, verdict.Skipped)
		})
	}
}

// judgesImage is a root file system of the judge and, in a folder each, the specs to judge by.
func judgesImage(t *testing.T) (folders map[string]string, archive string) {
	t.Helper()
	binary, err := judge.Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	add := func(name string, data []byte) {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: strings.TrimPrefix(name, "/"), Mode: 0o755, Size: int64(len(data))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	add(judge.Binary, program)
	folders = map[string]string{}
	for name, c := range judgedContainers {
		folder := "/bundle/" + strings.NewReplacer(" ", "-", ",", "").Replace(name)
		folders[name] = folder
		spec := byDefault(folder)
		c.change(spec)
		config, err := json.Marshal(spec)
		if err != nil {
			t.Fatal(err)
		}
		add(folder+"/config.json", config)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return folders, out.String()
}
