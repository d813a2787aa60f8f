// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package image

import (
	"fmt"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// maxReference is more than any valid reference has: 255 bytes of name, 128 of
// tag, 135 of digest.
const maxReference = 1024

// Normalize gives a reference its full form as Docker does: "busybox" becomes
// "docker.io/library/busybox:latest". A reference with tag and digest keeps
// both.
func Normalize(ref string) (string, error) {
	named, err := parseReference(ref)
	if err != nil {
		return "", err
	}
	return named.String(), nil
}

// Familiar is Normalize's inverse for showing: "docker.io/library/busybox:1"
// becomes "busybox:1". What is not a reference is returned as it is.
func Familiar(name string) string {
	named, err := parseReference(name)
	if err != nil {
		return name
	}
	return reference.FamiliarString(named)
}

func parseReference(ref string) (reference.Named, error) {
	if len(ref) > maxReference {
		return nil, fmt.Errorf("%w: longer than %d bytes", ErrInvalidReference, maxReference)
	}
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return nil, fmt.Errorf("%w %q: %w; expected [HOST/]NAME[:TAG][@DIGEST] in lower case", ErrInvalidReference, ref, err)
	}
	return reference.TagNameOnly(named), nil
}

// target is what a registry is asked for: the digest if there is one, since
// then the tag does not matter, else the tag.
func target(named reference.Named) string {
	if d, ok := named.(reference.Digested); ok {
		return d.Digest().String()
	}
	return named.(reference.Tagged).Tag()
}

// tagOf is the normalised NAME:TAG, empty when the reference has a digest: as
// with Docker, pulling by digest gives no tag.
func tagOf(named reference.Named) string {
	if _, ok := named.(reference.Digested); ok {
		return ""
	}
	return named.String()
}

// byDigest is NAME@DIGEST.
func byDigest(named reference.Named, d digest.Digest) string {
	return named.Name() + "@" + d.String()
}

// nameOf cuts tag and digest off a normalised reference.
func nameOf(ref string) string {
	name, _, _ := strings.Cut(ref, "@")
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		name = name[:i]
	}
	return name
}

// isTag tells NAME:TAG from NAME@DIGEST, both normalised.
func isTag(ref string) bool { return !strings.Contains(ref, "@") }
