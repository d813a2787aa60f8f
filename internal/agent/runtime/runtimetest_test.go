// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/micropod/micropod/test/judge"
)

// opencontainers/runtime-tools' runtimetest, run inside containers, agrees with what the spec says.
func TestRuntimetestAgrees(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	binary, err := judge.Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*specs.Spec){
		"rich":           func(*specs.Spec) {},
		"nothing staged": func(s *specs.Spec) { s.Mounts[0].Options = append(s.Mounts[0].Options, "rprivate") },
		"another user": func(s *specs.Spec) {
			s.Process.User.UID = 1000
			s.Process.User.GID = 1001
			s.Process.NoNewPrivileges = false
		},
		"read-only root": func(s *specs.Spec) { s.Root.Readonly = true },
		"terminal":       func(s *specs.Spec) { s.Process.Terminal = true },
		"few capabilities": func(s *specs.Spec) {
			s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: []string{"CAP_KILL"}, Permitted: []string{"CAP_KILL"}, Effective: []string{"CAP_KILL"}}
		},
		"shared root":     propagating("shared"),
		"slave root":      propagating("slave"),
		"private root":    propagating("private"),
		"unbindable root": propagating("unbindable"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			spec := judge.Spec()
			change(spec)
			root := t.TempDir()
			if err := judge.Bundle(root, binary, spec); err != nil {
				t.Fatal(err)
			}
			got := run(t, r, request(root, spec))
			verdict, err := judge.Verdict(got.out)
			if err != nil {
				t.Fatalf("%v\n%s", err, got.err)
			}
			if len(verdict.Failed) > 0 || got.Code != 0 || verdict.Passed < 200 {
				t.Errorf("%d passed, %d skipped, code %d, failed:\n%s", verdict.Passed, verdict.Skipped, got.Code, strings.Join(verdict.Failed, "\n"))
			}
			t.Logf("%d passed, %d skipped", verdict.Passed, verdict.Skipped)
		})
	}
}

// propagating sets the root's propagation, and what the judge needs to try it: it mounts, so it has CAP_SYS_ADMIN.
func propagating(name string) func(*specs.Spec) {
	return func(s *specs.Spec) {
		s.Linux.RootfsPropagation = name
		caps := append([]string{"CAP_SYS_ADMIN"}, s.Process.Capabilities.Bounding...)
		s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps, Inheritable: caps, Ambient: caps}
	}
}
