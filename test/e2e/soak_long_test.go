// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build soak

package e2e

import "time"

const (
	soakDefault = 10 * time.Minute
	soakWorkers = 50
)
