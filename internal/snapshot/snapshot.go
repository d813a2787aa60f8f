// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Package snapshot is the catalogue of users' snapshots on disk: machines saved with memory, devices
// and disk, of which new machines are made. It keeps files and knows neither engine nor
// machine; internal/machine saves and restores.
//
//	Open                  reads what is there; what was half made is removed
//	Catalogue.Begin       a folder for a new one -> Draft.Commit or Draft.Discard
//	Catalogue.Find        a whole one, in use until released
//	Catalogue.List, Get, Remove, Sweep
//	Catalogue.Export, Import
//
// On disk a snapshot is a folder named for its id with a manifest (snapshot.json) and a folder "files". A
// draft's folder begins with a dot and gets its name when all is written and synced: nothing half made is
// ever found, and what Commit kept survives a power failure.
//
// The manifest holds the sum of each file and is sealed with a key of this host
// (HMAC-SHA-256): a snapshot in which somebody changed a byte is refused. Sums are compared before the first
// use, and again when a file was touched since. An imported snapshot is sealed anew: its sums tell of damage
// on the way, and whoever imports it vouches for where it came from.
//
// All methods may be called concurrently. One process at a time uses a folder.
package snapshot

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"time"
)

// Snapshot is one that is whole.
type Snapshot struct {
	ID   string // 16 hex digits
	Name string // unique; empty: it has none
	Made time.Time
	Note Note

	// Temporary ones are not listed, and removed when nobody uses them any more.
	Temporary bool

	Bytes int64 // on disk, holes not counted
	InUse int   // by how many Finds and Holds that were not released; when this copy was made

	dir string
}

// Path is that of a file of the snapshot, or of a folder of files. It is only read.
func (s *Snapshot) Path(name string) string { return filepath.Join(s.dir, filesDir, name) }

// Note is what the makers tell of a snapshot. The catalogue does not look into it.
type Note struct {
	Machine   json.RawMessage // internal/machine's
	Container json.RawMessage `json:",omitempty"` // internal/container's; none: a machine without

	Of      string        // name of what was saved, for people
	Image   string        // reference, for people
	ImageID string        // sha256:...; the snapshot is of no use without it
	Engine  string        // for people
	Memory  int64         // bytes
	Paused  time.Duration // how long the machine stood still for it
	Version string        // of micropod

	// Here says that the snapshot was taken on this host and not imported: the host's files that it names may be used.
	Here bool `json:",omitempty"`
}

var nameForm = regexp.MustCompile("^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$")

// NameError: a name cannot be.
type NameError struct{ Name, Reason string }

func (e *NameError) Error() string { return fmt.Sprintf("snapshot name %q: %s", e.Name, e.Reason) }

// Remediation implements the API's hint.
func (e *NameError) Remediation() string {
	return "choose another name, or remove the other with: micropod snapshot rm"
}

// NotFoundError: no snapshot has this name or id, or several begin so.
type NotFoundError struct {
	Ref   string
	Count int // of those that begin so
}

func (e *NotFoundError) Error() string {
	if e.Count > 1 {
		return fmt.Sprintf("%q begins the id of %d snapshots", e.Ref, e.Count)
	}
	return fmt.Sprintf("no snapshot %q", e.Ref)
}

// Remediation implements the API's hint.
func (e *NotFoundError) Remediation() string { return "list snapshots with: micropod snapshot ls" }

// InUseError: machines run from the snapshot.
type InUseError struct {
	Ref      string
	Machines int
}

func (e *InUseError) Error() string {
	return fmt.Sprintf("snapshot %s is in use by %d machines", e.Ref, e.Machines)
}

// Remediation implements the API's hint.
func (e *InUseError) Remediation() string { return "remove it when those machines have ended" }

// DamageError: a snapshot is not what was saved.
type DamageError struct{ Ref, Reason string }

func (e *DamageError) Error() string { return fmt.Sprintf("snapshot %s: %s", e.Ref, e.Reason) }

// Remediation implements the API's hint.
func (e *DamageError) Remediation() string { return "make or import it again" }
