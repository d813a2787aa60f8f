// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Package version says which build this is. It is a leaf: every binary may import it.
package version

import (
	"runtime"
	"runtime/debug"
)

// Version and Commit are set by the build (-ldflags "-X ...version.Version=1.2.3").
var (
	Version = "dev"
	Commit  = ""
)

// API is the version of the public API in api/micropod/v1.
const API = "v1"

// Revision is the commit this binary was built from: what the build set, else what
// the Go tool recorded, else empty.
func Revision() string {
	if Commit != "" {
		return Commit
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return ""
}

// Platform is the operating system and architecture this binary is for.
func Platform() string { return runtime.GOOS + "/" + runtime.GOARCH }
