// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/micropod/micropod/test/kvmhost"
)

// figure is a line of what inkvmhost prints.
type figure struct {
	Name, Unit, Note string
	Samples          []float64
	Limit            float64
}

// measureFirecracker measures the other engine in a KVM host made in software, where the raw binary runs beside it. What
// is nested there takes ten times as long as on KVM; the ratios are what counts.
func measureFirecracker(ctx context.Context, s *setup, r *report) error {
	program := filepath.Join(s.dir, "inkvmhost")
	build := exec.CommandContext(ctx, "go", "build", "-o", program, "github.com/micropod/micropod/test/bench/inkvmhost")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if _, err := output(build); err != nil {
		return err
	}
	initrd, err := s.initrd(ctx, filepath.Join(s.bin, "micropod-agent"), nil)
	if err != nil {
		return err
	}
	host, err := kvmhost.Start(ctx)
	if err != nil {
		r.add("Firecracker in a KVM host made in software (does not run here)", "ms", nil, 0, firstLine(err))
		return nil
	}
	defer host.Close()
	files := kvmhost.Files{"/tmp/bench": program, "/tmp/vmlinux": s.vmlinux, "/tmp/initrd": initrd, "/tmp/busybox.tar": s.archive}
	for _, name := range []string{"micropod", "micropodd", "micropod-agent"} {
		files["/usr/local/bin/"+name] = filepath.Join(s.bin, name)
	}
	if err := host.Put(ctx, files); err != nil {
		return err
	}
	var stdout, stderr bytes.Buffer
	code, err := host.Run(ctx, kvmhost.Command{Args: []string{"/tmp/bench"}, Stdout: &stdout, Stderr: &stderr})
	if err != nil || code != 0 { // the figures before it are worth having
		defer r.add("Firecracker in the KVM host: not all of it could be measured", "ms", nil, 0, fmt.Sprintf("code %d, %v: %s", code, err, lastLine(stderr.Bytes())))
	}
	for lines := json.NewDecoder(&stdout); lines.More(); {
		var f figure
		if err := lines.Decode(&f); err != nil {
			return fmt.Errorf("reading figures from the KVM host: %w", err)
		}
		r.add(f.Name, f.Unit, f.Samples, f.Limit, f.Note)
	}
	return nil
}

func lastLine(text []byte) []byte {
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	return lines[len(lines)-1]
}
