// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"os"
	"path/filepath"

	testimages "github.com/micropod/micropod/test/images"
)

// archiveVariable names a file that is the image, where there is no repository.
const archiveVariable = "MICROPOD_TEST_IMAGE"

// busyboxArchive is the image that most tests run, made once and kept in the repository's cache.
func busyboxArchive() (string, error) {
	if path := os.Getenv(archiveVariable); path != "" {
		return path, nil
	}
	cache, err := filepath.Abs(filepath.Join("..", "..", ".cache", "images"))
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), commandLimit)
	defer cancel()
	return testimages.MakeBusybox(ctx, cache)
}
