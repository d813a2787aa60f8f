// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package vmm

import (
	"testing"
	"time"
)

func TestTokenBuckets(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		bucket TokenBucket
		rate   int64
		ok     bool
	}{
		"none":          {TokenBucket{}, 0, true},
		"a second":      {TokenBucket{Size: 10, Refill: time.Second}, 10, true},
		"a tenth":       {TokenBucket{Size: 10, Refill: 100 * time.Millisecond}, 100, true},
		"less than one": {TokenBucket{Size: 1, Refill: time.Hour}, 1, true},
		"burst":         {TokenBucket{Size: 1, Refill: time.Second, Burst: 5}, 1, true},
		"negative":      {TokenBucket{Size: -1, Refill: time.Second}, 0, false},
		"huge":          {TokenBucket{Size: maxTokens + 1, Refill: time.Second}, 0, false},
		"no refill":     {TokenBucket{Size: 1}, 0, false},
		"microseconds":  {TokenBucket{Size: 1, Refill: 1500 * time.Microsecond}, 0, false},
		"burst alone":   {TokenBucket{Burst: 1}, 0, false},
		"bad burst":     {TokenBucket{Size: 1, Refill: time.Second, Burst: -1}, 0, false},
	} {
		for _, l := range []RateLimit{{Bandwidth: test.bucket}, {Ops: test.bucket}} {
			if err := l.Check("x"); (err == nil) != test.ok {
				t.Errorf("%s: %v", name, err)
			}
		}
		if got := test.bucket.PerSecond(); test.ok && got != test.rate {
			t.Errorf("%s: %d a second, want %d", name, got, test.rate)
		}
	}
}
