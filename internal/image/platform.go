// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package image

import (
	"fmt"
	"runtime"
	"slices"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/cpu"
)

// platformChoice orders what may be run, best first.
type platformChoice struct {
	name    string
	matcher platforms.MatchComparer
}

// choosePlatform reads "os/arch[/variant]"; empty is this host's.
func choosePlatform(s string) (platformChoice, error) {
	if s == "" {
		specs := hostPlatforms()
		return platformChoice{platforms.Format(specs[0]), platforms.Ordered(specs...)}, nil
	}
	p, err := platforms.Parse(s)
	if err != nil {
		return platformChoice{}, fmt.Errorf("platform %q: %w", s, err)
	}
	return platformChoice{platforms.Format(p), platforms.Only(p)}, nil
}

// hostPlatforms lists what this host's machines run: the plain architecture
// first, since every image has it if any, then what only newer CPUs do.
func hostPlatforms() []ocispec.Platform {
	list := []ocispec.Platform{{OS: "linux", Architecture: runtime.GOARCH}}
	add := func(arch, variant string) {
		list = append(list, ocispec.Platform{OS: "linux", Architecture: arch, Variant: variant})
	}
	switch runtime.GOARCH {
	case "amd64":
		if cpu.X86.HasAVX2 && cpu.X86.HasBMI2 && cpu.X86.HasFMA {
			add("amd64", "v3")
		}
		if cpu.X86.HasSSE42 && cpu.X86.HasPOPCNT {
			add("amd64", "v2")
		}
		add("386", "")
	case "arm64":
		add("arm64", "v8")
	}
	return list
}

// match tells if an image configuration's platform can be run; what it does
// not say it is taken to fit.
func (c platformChoice) match(p ocispec.Platform) bool {
	if p.OS == "" {
		p.OS = "linux"
	}
	if p.Architecture == "" {
		return p.OS == "linux"
	}
	return c.matcher.Match(p)
}

// attestation tells a BuildKit attestation manifest, which is no image.
// https://github.com/moby/buildkit/blob/master/docs/attestations/attestation-storage.md
func attestation(d ocispec.Descriptor) bool {
	if d.Annotations["vnd.docker.reference.type"] != "" {
		return true
	}
	return d.Platform != nil && d.Platform.OS == "unknown" && d.Platform.Architecture == "unknown"
}

// candidates returns the index entries worth trying, best first, and the
// platforms that the others are for. Entries that name no platform come last.
func (c platformChoice) candidates(list []ocispec.Descriptor) (try []ocispec.Descriptor, others []string) {
	var silent []ocispec.Descriptor
	for _, d := range list {
		switch {
		case attestation(d):
		case d.Platform == nil || d.Platform.Architecture == "":
			silent = append(silent, d)
		case c.match(*d.Platform):
			try = append(try, d)
		default:
			others = append(others, platforms.Format(*d.Platform))
		}
	}
	slices.SortStableFunc(try, func(a, b ocispec.Descriptor) int {
		switch {
		case c.matcher.Less(*a.Platform, *b.Platform):
			return -1
		case c.matcher.Less(*b.Platform, *a.Platform):
			return 1
		}
		return 0
	})
	return append(try, silent...), others
}
