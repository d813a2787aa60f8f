// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"

	bolt "go.etcd.io/bbolt"
)

// ErrNotFound is returned by Get and Update when there is no such key.
var ErrNotFound = errors.New("no such record")

// Bucket holds records of one kind, by key. Its methods may be called concurrently.
type Bucket[T any] struct {
	db      *DB
	name    []byte
	version int
}

// Unreadable is a record that is there but cannot be understood. Delete removes it.
type Unreadable struct {
	Key string
	Err error
}

func (u *Unreadable) Error() string { return fmt.Sprintf("record %q: %v", u.Key, u.Err) }

// Unwrap returns why.
func (u *Unreadable) Unwrap() error { return u.Err }

// envelope is a record on disk. Version is the schema's: a T whose meaning
// changes in a way that old daemons would get wrong gets a higher one. Sum is the
// CRC-32C of Data, since bbolt has no sums of its own for what it holds.
type envelope struct {
	Version int             `json:"v"`
	Sum     uint32          `json:"sum"`
	Data    json.RawMessage `json:"data"`
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// NewBucket opens the bucket of this name, making it when missing. version is
// the schema version of T that this program writes, and the highest it reads.
func NewBucket[T any](db *DB, name string, version int) (*Bucket[T], error) {
	err := db.bolt.Update(func(tx *bolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists([]byte(name))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("making bucket %q: %w", name, err)
	}
	return &Bucket[T]{db: db, name: []byte(name), version: version}, nil
}

// Put stores v under key, in place of what was there.
func (b *Bucket[T]) Put(key string, v T) error {
	err := b.db.update(func(tx *bolt.Tx) error { return b.put(tx, key, v) })
	if err != nil {
		return fmt.Errorf("storing %s %q: %w", b.name, key, err)
	}
	return nil
}

// Get reads the record at key. The error is ErrNotFound or an *Unreadable, wrapped.
func (b *Bucket[T]) Get(key string) (T, error) {
	var v T
	err := b.db.bolt.View(func(tx *bolt.Tx) (err error) {
		v, err = b.get(tx, key)
		return err
	})
	if err != nil {
		return v, fmt.Errorf("reading %s %q: %w", b.name, key, err)
	}
	return v, nil
}

// Update reads the record at key, lets change edit it, and stores the result, all
// in one transaction. An error of change is returned as it is and nothing is stored.
func (b *Bucket[T]) Update(key string, change func(*T) error) error {
	return b.db.update(func(tx *bolt.Tx) error {
		v, err := b.get(tx, key)
		if err != nil {
			return fmt.Errorf("reading %s %q: %w", b.name, key, err)
		}
		if err := change(&v); err != nil {
			return err
		}
		return b.put(tx, key, v)
	})
}

// Delete removes the record at key, readable or not. A missing one is no error.
func (b *Bucket[T]) Delete(key string) error {
	err := b.db.update(func(tx *bolt.Tx) error { return tx.Bucket(b.name).Delete([]byte(key)) })
	if err != nil {
		return fmt.Errorf("removing %s %q: %w", b.name, key, err)
	}
	return nil
}

// Move stores v under key to and removes the record at key from, in one transaction.
func (b *Bucket[T]) Move(from, to string, v T) error {
	err := b.db.update(func(tx *bolt.Tx) error {
		if err := b.put(tx, to, v); err != nil {
			return err
		}
		return tx.Bucket(b.name).Delete([]byte(from))
	})
	if err != nil {
		return fmt.Errorf("moving %s %q to %q: %w", b.name, from, to, err)
	}
	return nil
}

// All reads every record, by key; beside them those that cannot be read.
func (b *Bucket[T]) All() (map[string]T, []*Unreadable, error) {
	all := make(map[string]T)
	var bad []*Unreadable
	err := b.db.bolt.View(func(tx *bolt.Tx) error {
		return tx.Bucket(b.name).ForEach(func(k, raw []byte) error {
			v, err := b.decode(string(k), raw)
			if err != nil {
				bad = append(bad, &Unreadable{string(k), errors.Unwrap(err)})
				return nil
			}
			all[string(k)] = v
			return nil
		})
	})
	if err != nil {
		return nil, nil, fmt.Errorf("reading all of %s: %w", b.name, err)
	}
	return all, bad, nil
}

func (b *Bucket[T]) put(tx *bolt.Tx, key string, v T) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	raw, err := json.Marshal(envelope{b.version, crc32.Checksum(data, castagnoli), data})
	if err != nil {
		return err
	}
	return tx.Bucket(b.name).Put([]byte(key), raw)
}

func (b *Bucket[T]) get(tx *bolt.Tx, key string) (T, error) {
	raw := tx.Bucket(b.name).Get([]byte(key))
	if raw == nil {
		var zero T
		return zero, ErrNotFound
	}
	return b.decode(key, raw)
}

// decode turns a record's bytes into a T; every error is an *Unreadable.
func (b *Bucket[T]) decode(key string, raw []byte) (T, error) {
	var v, zero T
	var e envelope
	if err := json.Unmarshal(raw, &e); err != nil {
		return zero, &Unreadable{key, fmt.Errorf("it is damaged: %w", err)}
	}
	if e.Version > b.version || e.Version < 1 {
		return zero, &Unreadable{key, fmt.Errorf("it has version %d and this daemon reads up to %d", e.Version, b.version)}
	}
	if sum := crc32.Checksum(e.Data, castagnoli); sum != e.Sum {
		return zero, &Unreadable{key, fmt.Errorf("it is damaged: sum %08x, want %08x", sum, e.Sum)}
	}
	if err := json.Unmarshal(e.Data, &v); err != nil {
		return zero, &Unreadable{key, fmt.Errorf("it does not fit: %w", err)}
	}
	return v, nil
}
