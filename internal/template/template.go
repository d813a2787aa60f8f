// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Package template is the catalogue of templates on disk: snapshots of booted machines that new
// machines are restored from. It keeps files and knows no engine; internal/machine makes templates and uses them.
//
//	Open                 reads what is there; what was half made is removed
//	Catalogue.Begin      a folder for a new one -> Draft.Commit or Draft.Discard
//	Catalogue.Find       a whole one, in use until released
//	Catalogue.List, Remove, Prune
//
// On disk a template is a folder named for its key, with a manifest (template.json) and the
// engine's files in a folder "snapshot". A draft's folder begins with a dot and gets its name
// when all is written: so nothing half made is ever found.
//
// The files are summed when they are made, and their sums compared before the first use in
// each boot of the host, or when a file has changed since (device, inode, size, times). Sums tell of damage by
// accident; who can write below the catalogue's folder could change sums as well. Nothing
// is synced to disk: what a power failure takes is found by the sums and made again.
//
// All methods may be called concurrently. One process at a time uses a folder.
package template

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"time"
)

// Key is all that a template depends on. Machines of one key are equal when they are restored.
type Key struct {
	Engine      string
	Fingerprint string // the engine's, see vmm.Fingerprinter
	Kernel      string // names of the files by their content, such as vmlinux-SUM
	Initrd      string
	Args        string // of the kernel, less what is measured on each host
	VCPUs       int
	Memory      int64  // bytes
	Slots       string // of the drives: "r" or "w" for each
	Interfaces  int    // of network
	Nested      bool
	Image       string // digest of the root file system that is mounted in it; empty: none, a base template
}

// ID is the key's short name: 16 hex digits.
func (k Key) ID() string {
	b, err := json.Marshal(k)
	if err != nil {
		panic(err) // strings and numbers only
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}

// Template is one that is whole.
type Template struct {
	ID   string
	Key  Key
	Note Note

	Made  time.Time
	Used  time.Time // last
	Bytes int64     // on disk, holes not counted

	InUse int // by how many Finds that were not released; when this copy was made

	dir string
}

// Snapshot is the folder that the engine restores from. It is only read.
func (t *Template) Snapshot() string { return t.dir + "/" + snapshotDir }

// Note is what the maker tells beside the key. It does not tell templates apart.
type Note struct {
	TSCKHz  uint64        // of the host it was made on
	Took    time.Duration // its making
	Image   string        // name of the image when it was made, for people
	Warmed  []string      // files of the image that were read into the page cache
	Version string        // of micropod
}
