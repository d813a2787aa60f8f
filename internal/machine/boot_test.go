// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/micropod/micropod/internal/guest/kernel"
)

// staticBinary stands in for the agent: any static executable will do for an archive.
const staticBinary = "/bin/busybox"

func TestBootFiles(t *testing.T) {
	t.Parallel()
	if _, err := kernel.Find(kernel.Options{}); err != nil {
		t.Skipf("no kernel for guests on this host: %v", err)
	}
	body, err := os.ReadFile(staticBinary)
	if err != nil {
		t.Skipf("busybox-static is not installed: %v", err)
	}
	dir := t.TempDir()
	agent := filepath.Join(dir, "agent")
	if err := os.WriteFile(agent, body, 0o700); err != nil {
		t.Fatal(err)
	}
	f := &BootFiles{Agent: agent, CacheDir: filepath.Join(dir, "boot")}
	if _, err := f.Find(); err != nil {
		t.Error(err)
	}
	first, err := f.Boot(t.Context(), "", false)
	if err != nil {
		t.Fatal(err)
	}
	line := first.CommandLine(1, "extra=1")
	if !strings.Contains(line, "tsc_early_khz=") || !strings.HasSuffix(line, " extra=1") {
		t.Errorf("command line is %q, want the host's counter, and the user's part last", line)
	}
	if again, err := f.Boot(t.Context(), "", false); err != nil || again != first {
		t.Errorf("the second time gave %+v, %v; want the same files", again, err)
	}
	if err := os.Remove(first.Initrd); err != nil {
		t.Fatal(err)
	}
	if again, err := f.Boot(t.Context(), "", false); err != nil || again != first {
		t.Errorf("after the archive was removed %+v, %v; want it made again", again, err)
	}
	if _, err := os.Stat(first.Initrd); err != nil {
		t.Error(err)
	}
	if err := errors.Join(os.WriteFile(agent, append(body, 0), 0o700), os.Chtimes(agent, time.Now(), time.Now())); err != nil {
		t.Fatal(err)
	}
	if other, err := f.Boot(t.Context(), "", false); err != nil || other.Initrd == first.Initrd {
		t.Errorf("with another agent %+v, %v; want another archive", other, err)
	}
	if _, err := f.Boot(t.Context(), "/nowhere/vmlinuz", false); err == nil {
		t.Error("a kernel that is not there was found")
	}
	f.Agent = "/nowhere/agent"
	if _, err := f.Boot(t.Context(), "", true); !errors.Is(err, ErrNoAgent) {
		t.Errorf("without agent Boot gave %v, want ErrNoAgent", err)
	}
}
