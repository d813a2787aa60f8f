// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build !cover

package agent

import (
	"errors"
	"io"
)

// An agent built without the tag "cover" has no counters to hand over.

func coverageEnv() []string { return nil }

func serveCoverage(io.Writer) error { return errors.New("agent was built without coverage") }
