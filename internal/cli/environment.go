// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"os"
	"strings"
)

// maxEnvFile bounds a file of variables or labels.
const maxEnvFile = 1 << 20

// environment merges files and flags as Docker does: later ones win in the
// container, and a NAME alone takes the caller's value or is left out when unset.
func environment(files, flags []string) ([]string, error) {
	lines, err := keyValueFiles("--env-file", files)
	if err != nil {
		return nil, err
	}
	var env []string
	for _, line := range append(lines, flags...) {
		name, _, given := strings.Cut(line, "=")
		if name == "" {
			return nil, usagef("write it like -e NAME=value", "environment variable %q has no name", line)
		}
		if !given {
			callers, set := os.LookupEnv(name)
			if !set {
				continue
			}
			line = name + "=" + callers
		}
		env = append(env, line)
	}
	return env, nil
}

// keyValueFiles reads lines of KEY=value; comments and empty lines are skipped.
func keyValueFiles(flag string, files []string) ([]string, error) {
	var lines []string
	for _, path := range files {
		data, err := readBounded(path, maxEnvFile)
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", flag, err)
		}
		text := strings.TrimPrefix(string(data), "\uFEFF")
		for number, line := range strings.Split(text, "\n") {
			line = strings.TrimLeft(strings.TrimSuffix(line, "\r"), " \t")
			if line == "" || line[0] == '#' {
				continue
			}
			name, _, _ := strings.Cut(line, "=")
			if name == "" || strings.ContainsAny(name, " \t") {
				return nil, usagef("each line is NAME=value", "%s %s, line %d: bad name %q", flag, path, number+1, name)
			}
			lines = append(lines, line)
		}
	}
	return lines, nil
}
