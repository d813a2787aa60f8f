// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"
	"fmt"
	"os"

	bolt "go.etcd.io/bbolt"
)

// maxProblems bounds what Check tells of a file that is broken everywhere.
const maxProblems = 10

// Check tells what is wrong with the file: pages that do not fit together, or that it is no longer at its path.
// Nothing of it can be mended while the daemon runs. Reading goes on beside it, writing waits.
func (d *DB) Check() error {
	var errs []error
	if err := d.checkPlace(); err != nil {
		errs = append(errs, err)
	}
	err := d.bolt.View(func(tx *bolt.Tx) error {
		for err := range tx.Check() {
			if len(errs) < maxProblems {
				errs = append(errs, err)
			}
		}
		return nil
	})
	return errors.Join(append(errs, err)...)
}

// checkPlace tells when the file was removed or replaced: what is stored now dies with the daemon.
func (d *DB) checkPlace() error {
	at, err := os.Stat(d.bolt.Path())
	if err != nil {
		return fmt.Errorf("the file that is in use is no longer there: %w", err)
	}
	if !os.SameFile(at, d.opened) {
		return fmt.Errorf("%s is not the file that is in use", d.bolt.Path())
	}
	return nil
}
