// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Package store keeps the daemon's records: one bbolt file, buckets of typed
// records as JSON.
//
// Call order: Open, NewBucket for each kind of record, then its methods from any
// goroutine, Close. Every Put and Delete is on disk when it returns (two
// fdatasyncs). A record that cannot be read (corrupt, or written by a newer
// daemon) is reported and stays as it is: see Unreadable. It is a leaf; what a
// record means is its owner's business.
package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// ErrLocked is returned by Open when another process has the file open.
var ErrLocked = errors.New("in use by another daemon")

// lockWait is how long Open waits for the file's lock. A daemon that is just
// ending lets go within it; one that stays is told of at once.
const lockWait = 200 * time.Millisecond

// DB is the open file.
type DB struct {
	bolt   *bolt.DB
	opened os.FileInfo // of the file when it was opened
	fault  atomic.Pointer[func() error]
}

// SetFault has f asked in each transaction that writes, when all but the commit is done: its error is what a full
// disk or a failing sync would be. For tests of what stands above; nil ends it.
func (d *DB) SetFault(f func() error) {
	if f == nil {
		d.fault.Store(nil)
		return
	}
	d.fault.Store(&f)
}

// update is a transaction that writes.
func (d *DB) update(change func(*bolt.Tx) error) error {
	return d.bolt.Update(func(tx *bolt.Tx) error {
		if err := change(tx); err != nil {
			return err
		}
		if f := d.fault.Load(); f != nil {
			return (*f)()
		}
		return nil
	})
}

// Open opens or makes the file at path, readable by its owner alone. Its folder
// is made if missing.
func Open(path string) (*DB, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o711); err != nil {
		return nil, fmt.Errorf("making the folder of the state database: %w", err)
	}
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: lockWait, FreelistType: bolt.FreelistMapType})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("opening the state database %s: %w", path, ErrLocked)
	}
	if err != nil {
		return nil, fmt.Errorf("opening the state database %s: %w", path, err)
	}
	opened, err := os.Stat(path)
	if err != nil {
		_ = db.Close()
		return nil, fmt.Errorf("opening the state database: %w", err)
	}
	return &DB{bolt: db, opened: opened}, nil
}

// Close waits for running transactions and closes the file.
func (d *DB) Close() error { return d.bolt.Close() }
