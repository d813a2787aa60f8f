// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package container

import (
	"errors"
	"fmt"
)

// Logging says what becomes of what a container writes.
type Logging struct {
	Driver   string // LogFiles, LogNone; empty: LogFiles
	MaxBytes int64  // of a file before the next one begins; 0: the daemon's; -1: no bound
	MaxFiles int    // 0: the daemon's
}

// The drivers.
const (
	LogFiles = "json-file"
	LogNone  = "none" // attached clients see it, nobody else
)

// Bounds of what may be asked for. A line of the log takes up to 96 KiB.
const (
	minLogBytes = 4 << 10
	maxLogFiles = 1000
)

// ErrNoLog is returned by Logs for a container whose output is not kept.
var ErrNoLog = errors.New("the container's output is not kept (--log-driver none)")

func (l Logging) check() error {
	switch {
	case l.Driver != LogFiles && l.Driver != LogNone:
		return &InvalidError{Field: "--log-driver", Value: l.Driver[:min(len(l.Driver), 64)], Reason: "is no driver", Hint: "json-file or none"}
	case l.Driver == LogNone && (l.MaxBytes != 0 || l.MaxFiles != 0):
		return &InvalidError{Field: "--log-opt", Reason: "the driver none has no options"}
	case l.MaxBytes < -1 || l.MaxBytes >= 0 && l.MaxBytes < minLogBytes && l.MaxBytes != 0:
		return &InvalidError{Field: "--log-opt max-size", Value: fmt.Sprint(l.MaxBytes), Reason: fmt.Sprintf("must be at least %d bytes, or -1", minLogBytes)}
	case l.MaxFiles < 0 || l.MaxFiles > maxLogFiles:
		return &InvalidError{Field: "--log-opt max-file", Value: fmt.Sprint(l.MaxFiles), Reason: fmt.Sprintf("must be between 1 and %d", maxLogFiles)}
	}
	return nil
}
