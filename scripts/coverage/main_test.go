// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const profile = `mode: atomic
github.com/micropod/micropod/internal/a/a.go:1.1,2.2 3 1
github.com/micropod/micropod/internal/a/a.go:3.1,4.2 1 0
github.com/micropod/micropod/internal/b/b.go:1.1,2.2 4 0
github.com/micropod/micropod/internal/b/b.go:1.1,2.2 4 7
github.com/micropod/micropod/internal/c/c.go:1.1,2.2 2 0
github.com/micropod/micropod/api/agent/v1/agent.pb.go:1.1,2.2 1000 0
github.com/micropod/micropod/test/images/images.go:1.1,2.2 1000 0
github.com/micropod/micropod/internal/vmm/vmmtest/suite.go:1.1,2.2 1000 0
`

func TestRun(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "profile")
	if err := os.WriteFile(path, []byte(profile), 0o644); err != nil {
		t.Fatal(err)
	}
	packages := "github.com/micropod/micropod/internal/a\ngithub.com/micropod/micropod/internal/unseen\ngithub.com/micropod/micropod/internal/erofs/erofstest\ngithub.com/micropod/micropod/api/agent/v1\n"
	for minimum, fails := range map[float64]bool{0: false, 70: false, 70.1: true} {
		var out strings.Builder
		err := run(path, minimum, strings.NewReader(packages), &out)
		if (err != nil) != fails {
			t.Errorf("with at least %g %%: error %v, want one: %v", minimum, err, fails)
		}
		for _, want := range []string{
			"75.0 %      3 of     4  github.com/micropod/micropod/internal/a\n",
			"100.0 %      4 of     4  github.com/micropod/micropod/internal/b\n",
			"70.0 %      7 of    10  in all",
			"no statement counted: github.com/micropod/micropod/internal/unseen\n",
		} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("output lacks %q:\n%s", want, out.String())
			}
		}
		for _, not := range []string{"agent/v1", "test/images", "vmmtest", "erofstest"} {
			if strings.Contains(out.String(), not) {
				t.Errorf("output counts %s:\n%s", not, out.String())
			}
		}
	}
}

func TestRunRefuses(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "profile")
	if err := os.WriteFile(path, []byte("mode: atomic\nwhat is this\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{path, path + ".missing"} {
		if err := run(path, 0, strings.NewReader(""), &strings.Builder{}); err == nil {
			t.Errorf("%s was taken as a profile", path)
		}
	}
}
