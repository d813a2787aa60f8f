// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/opencontainers/go-digest"
)

// What callers tell apart; every error of this package that is one of these
// satisfies errors.Is.
var (
	// ErrNotFound: the registry does not know the repository, tag or digest.
	ErrNotFound = errors.New("not found")
	// ErrUnauthorized: credentials are missing, wrong or not sufficient.
	ErrUnauthorized = errors.New("access denied")
	// ErrRateLimited: the registry asked to come back later, too often.
	ErrRateLimited = errors.New("too many requests")
	// ErrInsecure: only plain HTTP is on offer and it was not allowed.
	ErrInsecure = errors.New("plain HTTP refused")
	// ErrCorrupt: what arrived is not what its digest, size or format promises.
	ErrCorrupt = errors.New("corrupt data")
)

// StatusError is an HTTP answer other than success.
type StatusError struct {
	Code       int
	RetryAfter time.Duration // as the registry asked; 0 when it did not
	Err        error         // the registry's own words
}

func (e *StatusError) Error() string { return e.Err.Error() }

// Unwrap gives the registry's own error.
func (e *StatusError) Unwrap() error { return e.Err }

// Is maps status codes to this package's sentinels.
func (e *StatusError) Is(target error) bool {
	switch target {
	case ErrUnauthorized:
		return e.Code == http.StatusUnauthorized || e.Code == http.StatusForbidden
	case ErrNotFound:
		return e.Code == http.StatusNotFound
	case ErrRateLimited:
		return e.Code == http.StatusTooManyRequests
	}
	return false
}

// checkStatus returns nil if resp's status is one of codes, and consumes the
// body (bounded by the library) into the error otherwise.
func checkStatus(resp *http.Response, codes ...int) error {
	err := transport.CheckError(resp, codes...)
	if err == nil {
		return nil
	}
	return &StatusError{Code: resp.StatusCode, RetryAfter: retryAfter(resp.Header.Get("Retry-After")), Err: err}
}

// fromLibrary gives errors of go-containerregistry's handshake our type.
func fromLibrary(err error) error {
	var t *transport.Error
	if errors.As(err, &t) {
		return &StatusError{Code: t.StatusCode, Err: err}
	}
	return err
}

// maxRetryAfter bounds how long a registry can make us sleep at once.
const maxRetryAfter = time.Minute

// retryAfter reads the header of RFC 9110, section 10.2.3.
func retryAfter(v string) time.Duration {
	var d time.Duration
	if n, err := strconv.Atoi(v); err == nil && n > 0 {
		d = maxRetryAfter
		if n < int(maxRetryAfter/time.Second) {
			d = time.Duration(n) * time.Second
		}
	} else if at, err := http.ParseTime(v); err == nil {
		d = time.Until(at)
	}
	return min(max(d, 0), maxRetryAfter)
}

// mismatchError is a manifest that is not what its digest names; unlike other
// corruption it may be the line's fault.
type mismatchError struct{ want, got digest.Digest }

func (e *mismatchError) Error() string {
	return fmt.Sprintf("%v: the manifest sent for %s has digest %s", ErrCorrupt, e.want, e.got)
}

// Is matches ErrCorrupt.
func (e *mismatchError) Is(target error) bool { return target == ErrCorrupt }

func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrCorrupt, fmt.Sprintf(format, args...))
}
