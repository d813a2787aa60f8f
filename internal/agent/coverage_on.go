// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build cover

package agent

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/coverage"
)

// coverageDir collects the counters of all the agent's processes, in the machine's own root.
const coverageDir = "/cover"

// coverageEnv makes processes of the agent's binary write their counters at their end.
func coverageEnv() []string { return []string{"GOCOVERDIR=" + coverageDir} }

// keepCoverage writes this process's counters below root.
func keepCoverage(root string) error {
	dir := filepath.Join(root, coverageDir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := coverage.WriteMetaDir(dir); err != nil {
		return err
	}
	return coverage.WriteCountersDir(dir)
}

// serveCoverage hands all counters to the host: for each file one byte of name's length,
// the name, 32 bit of size, the content; a half-close at the end.
func serveCoverage(w io.Writer) error {
	if err := keepCoverage("/"); err != nil {
		return fmt.Errorf("writing coverage counters: %w", err)
	}
	entries, err := os.ReadDir(coverageDir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		content, err := os.ReadFile(filepath.Join(coverageDir, e.Name()))
		if err != nil {
			return err
		}
		header := append([]byte{byte(len(e.Name()))}, e.Name()...)
		header = binary.BigEndian.AppendUint32(header, uint32(len(content)))
		if _, err := w.Write(append(header, content...)); err != nil {
			return err
		}
	}
	return nil
}
