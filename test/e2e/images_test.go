// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"path/filepath"

	testimages "github.com/micropod/micropod/test/images"
)

// busyboxArchive is the image that most tests run, made once and kept in the repository's cache.
func busyboxArchive() (string, error) {
	cache, err := filepath.Abs(filepath.Join("..", "..", ".cache", "images"))
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), commandLimit)
	defer cancel()
	return testimages.MakeBusybox(ctx, cache)
}
