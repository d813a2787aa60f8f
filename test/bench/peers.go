// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// measurePeers times the same image's true in container runtimes of the host, which have no
// machine to boot. Those that are not installed are named.
func measurePeers(ctx context.Context, s *setup, r *report) error {
	bundle, err := s.bundle(ctx)
	if err != nil {
		return err
	}
	root := filepath.Join(s.dir, "peer-state")
	for _, peer := range []struct {
		name    string
		prepare []string
		args    []string
	}{
		{"crun", nil, []string{"crun", "--root", root + "-crun", "run", "--bundle", bundle, "bench-crun"}},
		{"runc", nil, []string{"runc", "--root", root + "-runc", "run", "--bundle", bundle, "bench-runc"}},
		{"podman", []string{"podman", "--root", root + "-podman", "--runroot", filepath.Join(s.dir, "pr"), "load", "-q", "-i", s.archive},
			[]string{"podman", "--root", root + "-podman", "--runroot", filepath.Join(s.dir, "pr"), "--cgroup-manager", "cgroupfs", "run", "--rm", "--ulimit", "host", "--network", "none", "busybox", "true"}},
	} {
		if _, err := exec.LookPath(peer.name); err != nil || bundle == "" && peer.name != "podman" {
			r.add("peer: "+peer.name+" (not installed)", "ms", nil, 0, "apt-get install "+peer.name)
			continue
		}
		if peer.prepare != nil {
			if _, err := output(exec.CommandContext(ctx, peer.prepare[0], peer.prepare[1:]...)); err != nil {
				r.add("peer: "+peer.name+" (does not run here)", "ms", nil, 0, firstLine(err))
				continue
			}
		}
		samples, err := times(ctx, s.runs, func(ctx context.Context) error {
			_, err := output(exec.CommandContext(ctx, peer.args[0], peer.args[1:]...))
			return err
		})
		if err != nil {
			r.add("peer: "+peer.name+" (does not run here)", "ms", nil, 0, firstLine(err))
			continue
		}
		r.add("peer: "+peer.name+" run true", "ms", samples, 0, "a container on the host's kernel, no network")
	}
	return nil
}

// firstLine is the beginning of what an error says behind the command it is of.
func firstLine(err error) string {
	text := err.Error()
	if at := strings.Index(text, "exit status"); at >= 0 {
		text = text[at:]
	}
	text, _, _ = strings.Cut(text, "\n")
	return text[:min(len(text), 120)]
}

// bundle unpacks the image for runc and crun; empty when umoci is missing. umoci reads OCI
// manifests only.
func (s *setup) bundle(ctx context.Context) (string, error) {
	if !installed([]string{"umoci", "skopeo"}) {
		return "", nil
	}
	layout, bundle := filepath.Join(s.dir, "peer-layout"), filepath.Join(s.dir, "peer-bundle")
	for _, args := range [][]string{
		{"skopeo", "copy", "-q", "--format", "oci", "oci-archive:" + s.archive, "oci:" + layout + ":one"},
		{"umoci", "unpack", "--image", layout + ":one", bundle},
	} {
		if _, err := output(exec.CommandContext(ctx, args[0], args[1:]...)); err != nil {
			return "", err
		}
	}
	return bundle, runTrue(filepath.Join(bundle, "config.json"))
}

// runTrue edits a runtime specification so that it runs true without a terminal.
func runTrue(config string) error {
	data, err := os.ReadFile(config)
	if err != nil {
		return err
	}
	var spec map[string]any
	if err := json.Unmarshal(data, &spec); err != nil {
		return err
	}
	process, ok := spec["process"].(map[string]any)
	if !ok {
		return fmt.Errorf("%s has no process", config)
	}
	process["args"], process["terminal"] = []string{"true"}, false
	if data, err = json.Marshal(spec); err != nil {
		return err
	}
	return os.WriteFile(config, data, 0o600)
}
