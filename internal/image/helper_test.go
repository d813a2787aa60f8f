// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package image_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/micropod/micropod/internal/image"
)

// TestMain lets the test binary be another process that uses a store: killed,
// or in the way.
func TestMain(m *testing.M) {
	if os.Getenv("IMAGE_TEST_HELPER") == "" {
		os.Exit(m.Run())
	}
	if err := help(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func help(args []string) error {
	switch args[0] {
	case "fill":
		return fillDisk(args[1], args[2:])
	case "stick":
		return stickInConversion(args[1], args[2])
	}
	s, err := image.Open(image.Config{Root: args[1], Convert: convert, CertDirs: []string{}})
	if err != nil {
		return err
	}
	switch args[0] {
	case "pull":
		_, err = s.Pull(context.Background(), args[2], image.PullOptions{})
	case "import":
		_, err = s.ImportPath(context.Background(), args[2], image.ImportOptions{Reference: args[3]})
	}
	return err
}

func helper(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), "IMAGE_TEST_HELPER=1")
	cmd.Stderr = os.Stderr
	return cmd
}

// awaitPart waits until a partly fetched blob has n bytes.
func awaitPart(t *testing.T, root string, n int64) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		parts, _ := filepath.Glob(root + "/ingest/*.part")
		for _, p := range parts {
			if st, err := os.Stat(p); err == nil && st.Size() >= n {
				return
			}
		}
	}
	t.Fatalf("no part of %d bytes appeared", n)
}

func itoa(n int) string { return strconv.Itoa(n) }
