// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"os"
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	t.Parallel()
	db, b := open(t)
	if err := b.Put("a", thing{"x", 1}); err != nil {
		t.Fatal(err)
	}
	if err := db.Check(); err != nil {
		t.Errorf("in order, and yet %v", err)
	}
	path := db.bolt.Path()
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	if err := db.Check(); err == nil || !strings.Contains(err.Error(), "no longer there") {
		t.Errorf("without its file: %v", err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := db.Check(); err == nil || !strings.Contains(err.Error(), "not the file that is in use") {
		t.Errorf("with another file: %v", err)
	}
}
