// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Command micropod-agent is PID 1 of every micropod machine; see internal/agent.
package main

import (
	"github.com/micropod/micropod/internal/agent"
	"github.com/micropod/micropod/internal/agent/runtime"
)

func main() {
	runtime.Child() // does not return in the processes that become containers
	agent.Main()
}
