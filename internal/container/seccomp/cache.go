// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"crypto/sha256"
	"encoding/json"
	"sync"
)

// maxCompiled bounds the filters kept, each some 20 KiB. Hardly any host has containers with more than two or three.
const maxCompiled = 16

// compiled holds what Compile made last: a daemon that takes up many containers needs the same few filters for all.
var compiled = struct {
	sync.Mutex
	filters map[[sha256.Size]byte]result
}{filters: make(map[[sha256.Size]byte]result)}

type result struct {
	filter   string
	warnings []string
}

// key names what a filter is made of.
func key(profile string, caps []string, kernel string) [sha256.Size]byte {
	parts, _ := json.Marshal([]any{profile, caps, kernel}) // never fails: strings
	return sha256.Sum256(parts)
}

func recall(k [sha256.Size]byte) (r result, ok bool) {
	compiled.Lock()
	defer compiled.Unlock()
	r, ok = compiled.filters[k]
	return r, ok
}

func remember(k [sha256.Size]byte, r result) {
	compiled.Lock()
	defer compiled.Unlock()
	if len(compiled.filters) >= maxCompiled {
		clear(compiled.filters)
	}
	compiled.filters[k] = r
}
