// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/micropod/micropod/internal/vmm"
)

// binaryVersion is what a binary said of itself, as long as it stays the same file.
type binaryVersion struct {
	size     int64
	modified time.Time
	text     string
}

// Fingerprint implements vmm.Fingerprinter. In software emulation a guest sees nothing of the
// host's CPU; under KVM it sees all features that the host's kernel lets through.
func (e *Engine) Fingerprint(ctx context.Context, c vmm.Config) (string, error) {
	accel, err := e.accel(ctx, Guest{Kernel: c.Kernel, Initrd: c.Initrd, Args: c.Args})
	if err != nil {
		return "", err
	}
	version, err := e.binaryVersion(ctx)
	if err != nil {
		return "", err
	}
	print := fmt.Sprintf("%s, snapshots %d, %s", version, snapshotFormat, accel)
	if accel == AccelKVM {
		cpu, err := vmm.HostCPU("/proc/cpuinfo")
		if err != nil {
			return "", err
		}
		print += ", " + cpu
	}
	return print, nil
}

// binaryVersion asks the binary (0.02 s) whenever it has changed.
func (e *Engine) binaryVersion(ctx context.Context) (string, error) {
	info, err := os.Stat(e.binary)
	if err != nil {
		return "", err
	}
	e.versions.Lock()
	defer e.versions.Unlock()
	if v := e.version; v.text != "" && v.size == info.Size() && v.modified.Equal(info.ModTime()) {
		return v.text, nil
	}
	out, err := exec.CommandContext(ctx, e.binary, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("asking %s for its version: %w", e.binary, err)
	}
	line, _, _ := bytes.Cut(out, []byte("\n"))
	e.version = binaryVersion{info.Size(), info.ModTime(), strings.TrimSpace(string(line))}
	return e.version.text, nil
}
