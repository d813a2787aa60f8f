// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Command child is the runtime's child processes and nothing else. Tests that count
// coverage build it with counters: a test binary cannot hand over its own before execve.
package main

import "github.com/micropod/micropod/internal/agent/runtime"

func main() { runtime.Child() }
