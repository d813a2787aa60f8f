// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package vmm

import "context"

// Fingerprinter is an Engine whose snapshots may be kept: one that can tell whether a
// snapshot of a while ago still fits.
type Fingerprinter interface {
	// Fingerprint names, for people and in one short line, what beside its Config a
	// snapshot of c's machine depends on: the engine's version, the format of its snapshots,
	// the accelerator, and the host's CPU where guests see it. What was
	// saved under one fingerprint may be restored under the same one. An engine that cannot tell
	// returns an *UnsupportedError.
	Fingerprint(ctx context.Context, c Config) (string, error)
}
