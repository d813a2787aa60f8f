// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package firecracker

// AtStages has f called before each stage of a start, with the pid of the VMM. It is to be set before the engine is used.
func (e *Engine) AtStages(f func(name string, pid int)) { e.stage = f }
