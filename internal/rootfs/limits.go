// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"fmt"
	"sync/atomic"
	"time"
)

// Limits bounds what a conversion may take, over all layers. A zero field means the
// default in its comment.
type Limits struct {
	Bytes   int64 // uncompressed, holes of sparse files included; 64 GiB
	Ratio   int64 // uncompressed bytes for one compressed, of a layer larger than 1 GiB; 400
	Entries int   // in all tars; 1,000,000
	Names   int64 // bytes of names, link targets and extended attributes in all tars; 256 MiB

	// Of the child of ConvertIsolated only.
	Memory int64         // bytes; 1 GiB, of which images as people make them take less than 200 MB
	Time   time.Duration // of processors; 20 minutes
}

const ratioFrom = 1 << 30 // bytes of a layer from which Limits.Ratio counts

func (l Limits) orDefault() Limits {
	if l.Bytes == 0 {
		l.Bytes = 64 << 30
	}
	if l.Ratio == 0 {
		l.Ratio = 400
	}
	if l.Entries == 0 {
		l.Entries = 1_000_000
	}
	if l.Names == 0 {
		l.Names = 256 << 20
	}
	if l.Memory == 0 {
		l.Memory = 1 << 30
	}
	if l.Time == 0 {
		l.Time = 20 * time.Minute
	}
	return l
}

// budget counts what all layers of a conversion took. Safe for concurrent use.
type budget struct {
	limits                Limits
	bytes, entries, names atomic.Int64
}

func (b *budget) takeBytes(n int64) error { return take(&b.bytes, n, b.limits.Bytes, "bytes") }

// takeEntry counts one entry whose name and other metadata have n bytes.
func (b *budget) takeEntry(n int) error {
	if err := take(&b.entries, 1, int64(b.limits.Entries), "entries"); err != nil {
		return err
	}
	return take(&b.names, int64(n), b.limits.Names, "bytes of names and attributes")
}

func (b *budget) checkRatio(uncompressed, compressed int64) error {
	if uncompressed < ratioFrom || uncompressed/b.limits.Ratio <= compressed {
		return nil
	}
	return fmt.Errorf("%w: %d bytes came out of %d, more than %d times as many",
		ErrLimit, uncompressed, compressed, b.limits.Ratio)
}

func take(counter *atomic.Int64, n, limit int64, what string) error {
	if n < 0 || n > limit || counter.Add(n) > limit {
		return fmt.Errorf("%w: more than %d %s uncompressed", ErrLimit, limit, what)
	}
	return nil
}
