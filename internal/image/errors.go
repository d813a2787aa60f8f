// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package image

import (
	"errors"
	"fmt"
	"strings"

	"github.com/micropod/micropod/internal/image/registry"
)

// What callers tell apart with errors.Is.
var (
	// ErrNotFound: neither the store nor the registry knows the image.
	ErrNotFound = registry.ErrNotFound
	// ErrUnauthorized: the registry wants other credentials.
	ErrUnauthorized = registry.ErrUnauthorized
	// ErrRateLimited: the registry answered "too many requests" to the end.
	ErrRateLimited = registry.ErrRateLimited
	// ErrInsecure: the registry offers plain HTTP only, which is not allowed.
	ErrInsecure = registry.ErrInsecure
	// ErrCorrupt: bytes do not fit their digest, size or format.
	ErrCorrupt = registry.ErrCorrupt
	// ErrPlatform: the image is for other platforms; see PlatformError.
	ErrPlatform = errors.New("no image for this platform")
	// ErrUnsupported: a valid artifact that cannot be run as a container.
	ErrUnsupported = errors.New("not supported")
	// ErrInUse: see InUseError.
	ErrInUse = errors.New("image is in use")
	// ErrAmbiguous: an ID prefix fits several images, or an ID several names.
	ErrAmbiguous = errors.New("ambiguous")
	// ErrInvalidReference: the name is not a valid image reference.
	ErrInvalidReference = errors.New("invalid image reference")
	// ErrLocked: another process has the store open.
	ErrLocked = errors.New("image store is in use by another process")
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("image store is closed")
)

// PlatformError is ErrPlatform with what there is.
type PlatformError struct {
	Want string
	Have []string // as "os/architecture[/variant]"
}

func (e *PlatformError) Error() string {
	have := "none that can be run"
	if len(e.Have) > 0 {
		have = strings.Join(e.Have, ", ")
	}
	return fmt.Sprintf("image has no manifest for %s, it is made for: %s", e.Want, have)
}

// Is matches ErrPlatform.
func (e *PlatformError) Is(target error) bool { return target == ErrPlatform }

// InUseError is ErrInUse with who uses the image.
type InUseError struct {
	Image string
	Users []string
}

func (e *InUseError) Error() string {
	return fmt.Sprintf("image %s is in use by %s; remove that first", e.Image, strings.Join(e.Users, ", "))
}

// Is matches ErrInUse.
func (e *InUseError) Is(target error) bool { return target == ErrInUse }

func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrCorrupt, fmt.Sprintf(format, args...))
}
