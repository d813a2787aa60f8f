// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package container

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	agentv1 "github.com/micropod/micropod/api/agent/v1"
)

func TestExitProgramExits(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, exitProgram(), 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(path).CombinedOutput(); err != nil || len(out) != 0 {
		t.Errorf("the program ends with %v, %q", err, out)
	}
}

func TestRehearsalHasNothingOfTheUsers(t *testing.T) {
	t.Parallel()
	spec, err := json.Marshal(&specs.Spec{
		Process: &specs.Process{Args: []string{"sh", "-c", "secret"}, Env: []string{"PASSWORD=secret"}, Terminal: true, Cwd: "/"},
		Linux:   &specs.Linux{MaskedPaths: []string{"/proc/kcore"}}, Hostname: "secret",
	})
	if err != nil {
		t.Fatal(err)
	}
	r := rehearsal(&agentv1.StartContainerRequest{
		Id: "secret", Spec: spec, User: "daemon", Rootfs: &agentv1.RootFS{ImageSlot: 0, ScratchSlot: 1},
		Files: []*agentv1.File{{Path: "/etc/hosts", Content: []byte("secret")}}, Stdio: &agentv1.Stdio{Stdin: true},
	})
	if text := r.String(); strings.Contains(text, "secret") || strings.Contains(string(r.Spec), "secret") {
		t.Errorf("the rehearsal is %s", text)
	}
	if r.Rootfs.GetScratchSlot() != 1 || !strings.Contains(string(r.Spec), "/proc/kcore") || r.Files[0].Path != rehearsalPath {
		t.Errorf("the rehearsal goes other ways: %s", r)
	}
	if len(r.Files) != 2 || r.Files[1].Path != "/etc/hosts" || r.User != "daemon" {
		t.Errorf("the rehearsal makes other files: %s", r)
	}
	if r := rehearsal(&agentv1.StartContainerRequest{Spec: []byte("{")}); r.Id != rehearsalID {
		t.Error("no rehearsal of a bad spec")
	}
}
