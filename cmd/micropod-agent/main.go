// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Command micropod-agent is PID 1 of every micropod machine; see internal/agent.
package main

// A goroutine that the scheduler would like to interrupt soon comes to a call that lets it. To be
// interrupted by a signal would be some thousand instructions more that run for the first time after a restore.
//
//go:debug asyncpreemptoff=1

import (
	"github.com/micropod/micropod/internal/agent"
	"github.com/micropod/micropod/internal/agent/runtime"
)

func main() {
	runtime.Child() // does not return in the processes that become containers
	agent.Main()
}
