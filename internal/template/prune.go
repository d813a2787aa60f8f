// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package template

import "time"

// Bounds say what a catalogue may hold. Zero fields bound nothing.
type Bounds struct {
	Count int
	Bytes int64         // on disk
	Idle  time.Duration // since the last use
}

// Prune removes the least recently used of those that match until the rest is within the bounds. Those in use
// stay, but are counted. It returns what it removed.
func (c *Catalogue) Prune(b Bounds, match func(*Template) bool) (removed []Template, err error) {
	kept, bytes := 0, int64(0)
	for _, t := range c.List() { // the last used first
		if !match(&t) {
			continue
		}
		kept++
		bytes += t.Bytes
		if (b.Count == 0 || kept <= b.Count) && (b.Bytes == 0 || bytes <= b.Bytes) && (b.Idle == 0 || time.Since(t.Used) <= b.Idle) {
			continue
		}
		if t.InUse > 0 {
			continue
		}
		if _, err := c.Remove(t.ID); err != nil {
			return removed, err
		}
		kept--
		bytes -= t.Bytes
		removed = append(removed, t)
	}
	return removed, nil
}
