// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build faults

package fault

import (
	"os"
	"sync/atomic"
	"time"
)

var reached atomic.Bool

// Point stops at the point asked for, once.
func Point(name string) {
	if name != os.Getenv("MICROPOD_FAULT") || !reached.CompareAndSwap(false, true) {
		return
	}
	path := os.Getenv("MICROPOD_FAULT_FILE")
	if err := os.WriteFile(path, []byte(name), 0o600); err != nil {
		panic(err)
	}
	for {
		if _, err := os.Stat(path); err != nil {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}
