// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build !soak

package e2e

import "time"

const (
	soakDefault = 20 * time.Second
	soakWorkers = 4
)
