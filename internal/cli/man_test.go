// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"maps"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestManPages has man's own formatter read every page: it must find nothing to complain of.
func TestManPages(t *testing.T) {
	t.Parallel()
	pages := ManPages()
	for _, name := range []string{"micropod.1", "micropod-run.1", "micropod-container-prune.1", "micropod-completion-bash.1"} {
		if pages[name] == "" {
			t.Errorf("there is no page %s", name)
		}
	}
	if run := pages["micropod-run.1"]; !strings.Contains(run, `\-\-detach`) || !strings.Contains(run, ".SH EXAMPLES") || !strings.Contains(run, "125") {
		t.Errorf("micropod-run.1 lacks flags, examples or exit codes:\n%.600s", run)
	}
	groff, err := exec.LookPath("groff")
	if err != nil {
		t.Skip("groff is not installed: apt-get install groff-base")
	}
	cmd := exec.Command(groff, "-man", "-Tutf8", "-ww", "-z")
	cmd.Stdin = strings.NewReader(strings.Join(slices.Collect(maps.Values(pages)), ""))
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("groff: %v\n%s", err, out)
	}
}
