// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package logfile

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"

	"github.com/micropod/micropod/internal/sparse"
)

// keptNote is the note's name among the files of Keep; the others are named for how often they were rotated.
const keptNote = "offset"

// Keep copies the log, as it is between two writes, into the folder dir, which must exist: another Log can Restore it.
func (l *Log) Keep(ctx context.Context, dir string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := eachFile(l.config.MaxFiles, func(n int) error {
		return sparse.Clone(ctx, filepath.Join(dir, strconv.Itoa(n)), l.name(n))
	})
	if err == nil {
		err = sparse.Clone(ctx, filepath.Join(dir, keptNote), l.notePath())
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("keeping the log: %w", err)
	}
	return nil
}

// Restore puts what Keep copied where this log is, before the first Begin or Resume.
func (l *Log) Restore(ctx context.Context, dir string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := eachFile(l.config.MaxFiles, func(n int) error {
		return sparse.Clone(ctx, l.name(n), filepath.Join(dir, strconv.Itoa(n)))
	})
	if err == nil {
		err = sparse.Clone(ctx, l.notePath(), filepath.Join(dir, keptNote))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("restoring the log: %w", err)
	}
	return nil
}

// eachFile calls do for the log's files, newest first, until one is not there.
func eachFile(most int, do func(n int) error) error {
	for n := range max(most, 1) {
		switch err := do(n); {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		}
	}
	return nil
}
