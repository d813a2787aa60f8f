// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"runtime/debug"
	"sync"
	"syscall"
)

const (
	progressStep = 1 << 20   // bytes of blobs between two messages
	softMemory   = 120 << 20 // bytes from which the garbage collector works harder
)

// IsChild says whether this process was started by ConvertIsolated. A main that uses it
// asks this before anything else, and then calls ChildMain.
func IsChild() bool { return len(os.Args) == 2 && os.Args[1] == childArgument }

// ChildMain gives up all privileges, converts what it was given, and ends the process.
func ChildMain() {
	debug.SetMemoryLimit(softMemory)
	messages := os.NewFile(fdMessages, "messages")
	result, err := childRun(messages)
	last := message{Result: &result}
	if err != nil {
		last = message{Fault: packError(err)}
	}
	if json.NewEncoder(messages).Encode(last) != nil {
		syscall.Exit(1)
	}
	// Not os.Exit: what may hang on that wants to write files.
	syscall.Exit(0)
}

func childRun(messages *os.File) (Result, error) {
	var r request
	if err := json.NewDecoder(os.Stdin).Decode(&r); err != nil {
		return Result{}, fmt.Errorf("reading the request: %w", err)
	}
	c := &conversion{
		sizes:    r.Sizes,
		offsets:  r.Offsets,
		diffIDs:  r.DiffIDs,
		limits:   r.Limits,
		image:    os.NewFile(fdImage, "image"),
		tails:    os.NewFile(fdTails, "tails"),
		progress: tellProgress(messages),
	}
	if err := confine(r.Limits); err != nil {
		return Result{}, fmt.Errorf("giving up privileges: %w", err)
	}
	c.blobs = receiveLayers(fdLayers, len(r.Sizes))
	return c.run(context.Background())
}

// tellProgress writes a message whenever a step is done. The parent reads all the time.
func tellProgress(messages *os.File) func(done, total int64) {
	told := int64(0)
	var mu sync.Mutex
	return func(done, total int64) {
		mu.Lock()
		defer mu.Unlock()
		if done-told < progressStep && done < total {
			return
		}
		told = done
		json.NewEncoder(messages).Encode(message{Done: done}) // a parent that is gone ends this process anyway
	}
}
