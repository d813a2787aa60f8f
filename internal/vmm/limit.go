// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package vmm

import (
	"fmt"
	"time"
)

// RateLimit bounds what flows through a device. A zero bucket bounds nothing.
type RateLimit struct {
	Bandwidth TokenBucket // bytes
	Ops       TokenBucket // operations
}

// TokenBucket is full at first; what flows takes tokens out of it, and waits where there are none.
type TokenBucket struct {
	Size   int64         // tokens that it holds; zero: no bound
	Refill time.Duration // in which an empty one is full again; whole milliseconds
	Burst  int64         // tokens spent first, once, and not refilled; not every engine has them
}

// Bounds of a TokenBucket. maxTokens is QEMU's (include/qemu/throttle.h: THROTTLE_VALUE_MAX).
const (
	maxTokens = 1e15
	maxRefill = time.Hour
)

// IsZero says that nothing is bounded.
func (l RateLimit) IsZero() bool { return l == RateLimit{} }

// PerSecond is the rate that lasts, at least 1 in a bucket that bounds anything.
func (b TokenBucket) PerSecond() int64 {
	if b.Size == 0 {
		return 0
	}
	return max(1, int64(min(float64(b.Size)/b.Refill.Seconds(), maxTokens)))
}

// Check returns a *ConfigError, whose field begins with the name given, for what no engine can do.
func (l RateLimit) Check(field string) error {
	if reason := l.Bandwidth.check(); reason != "" {
		return &ConfigError{field + ".bandwidth", reason}
	}
	if reason := l.Ops.check(); reason != "" {
		return &ConfigError{field + ".ops", reason}
	}
	return nil
}

// check returns what is wrong, for people, or nothing.
func (b TokenBucket) check() string {
	switch {
	case b.Size < 0 || b.Size > maxTokens:
		return fmt.Sprintf("a size of %d is not between 0 and %.0f", b.Size, maxTokens)
	case b.Size == 0 && (b.Refill != 0 || b.Burst != 0):
		return "a bucket of size 0 bounds nothing, yet it has a refill time or a burst"
	case b.Size > 0 && (b.Refill < time.Millisecond || b.Refill > maxRefill || b.Refill%time.Millisecond != 0):
		return fmt.Sprintf("a refill time of %s is not whole milliseconds of at most an hour", b.Refill)
	case b.Burst < 0 || b.Burst > maxTokens:
		return fmt.Sprintf("a burst of %d is not between 0 and %.0f", b.Burst, maxTokens)
	}
	return ""
}
