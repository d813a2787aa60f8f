// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	bolt "go.etcd.io/bbolt"
)

type thing struct {
	Name string
	N    int
}

func open(t *testing.T) (*DB, *Bucket[thing]) {
	t.Helper()
	db, err := Open(filepath.Join(t.TempDir(), "new", "state.db"))
	if err != nil {
		t.Fatalf("opening a new store: %v", err)
	}
	t.Cleanup(func() { _ = db.Close() })
	b, err := NewBucket[thing](db, "things", 2)
	if err != nil {
		t.Fatalf("making the bucket: %v", err)
	}
	return db, b
}

func TestOpenTwiceIsRefusedAtOnce(t *testing.T) {
	t.Parallel()
	db, _ := open(t)
	path := db.bolt.Path()
	if _, err := Open(path); !errors.Is(err, ErrLocked) {
		t.Fatalf("a second Open gave %v, want ErrLocked", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := Open(path)
	if err != nil {
		t.Fatalf("Open after Close: %v", err)
	}
	_ = again.Close()
}

func TestOpenRefusesWhatIsNoDatabase(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state.db")
	if err := os.WriteFile(path, []byte(strings.Repeat("no database at all ", 4096)), 0o600); err != nil {
		t.Fatal(err)
	}
	if db, err := Open(path); err == nil {
		_ = db.Close()
		t.Fatal("Open took a file of prose for a database")
	}
	if _, err := Open(filepath.Join(path, "below", "state.db")); err == nil {
		t.Fatal("Open made a folder below a file")
	}
}

func TestRecordsSurvive(t *testing.T) {
	t.Parallel()
	db, b := open(t)
	if _, err := b.Get("a"); !errors.Is(err, ErrNotFound) {
		t.Errorf("Get of nothing gave %v, want ErrNotFound", err)
	}
	if err := b.Put("a", thing{"first", 1}); err != nil {
		t.Fatal(err)
	}
	if err := b.Update("a", func(v *thing) error { v.N++; return nil }); err != nil {
		t.Fatal(err)
	}
	path := db.bolt.Path()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	b, err = NewBucket[thing](db, "things", 2)
	if err != nil {
		t.Fatal(err)
	}
	if v, err := b.Get("a"); err != nil || v != (thing{"first", 2}) {
		t.Errorf("after reopening Get gave %+v, %v; want {first 2}", v, err)
	}
	for range 2 { // a second Delete is no error
		if err := b.Delete("a"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.Get("a"); !errors.Is(err, ErrNotFound) {
		t.Errorf("Get after Delete gave %v, want ErrNotFound", err)
	}
}

func TestUpdateThatFailsChangesNothing(t *testing.T) {
	t.Parallel()
	_, b := open(t)
	boom := errors.New("boom")
	if err := b.Update("none", func(*thing) error { return nil }); !errors.Is(err, ErrNotFound) {
		t.Errorf("Update of nothing gave %v, want ErrNotFound", err)
	}
	if err := b.Put("a", thing{"x", 1}); err != nil {
		t.Fatal(err)
	}
	if err := b.Update("a", func(v *thing) error { v.N = 9; return boom }); !errors.Is(err, boom) {
		t.Errorf("Update gave %v, want the change's own error", err)
	}
	if v, _ := b.Get("a"); v.N != 1 {
		t.Errorf("N is %d after a failed Update, want 1", v.N)
	}
}

func TestConcurrentUpdatesAllCount(t *testing.T) {
	t.Parallel()
	_, b := open(t)
	if err := b.Put("a", thing{}); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if err := b.Update("a", func(v *thing) error { v.N++; return nil }); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if v, _ := b.Get("a"); v.N != 20 {
		t.Errorf("N is %d after 20 updates", v.N)
	}
}

func TestUnreadableRecordsAreToldAndKept(t *testing.T) {
	t.Parallel()
	db, b := open(t)
	if err := b.Put("good", thing{"good", 1}); err != nil {
		t.Fatal(err)
	}
	bad := map[string]string{
		"cut":    `{"v":1,"sum":0,"da`,
		"newer":  `{"v":3,"sum":0,"data":{}}`,
		"zero":   `{}`,
		"sum":    `{"v":1,"sum":1,"data":{"Name":"x"}}`,
		"nofit":  fmt.Sprintf(`{"v":1,"sum":%d,"data":"text"}`, crc32.Checksum([]byte(`"text"`), castagnoli)),
		"binary": "\x00\xff\x00",
	}
	err := db.bolt.Update(func(tx *bolt.Tx) error {
		for k, v := range bad {
			if err := tx.Bucket([]byte("things")).Put([]byte(k), []byte(v)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	all, told, err := b.All()
	if err != nil || len(all) != 1 || all["good"].N != 1 {
		t.Errorf("All gave %v, %v; want the good record alone", all, err)
	}
	if len(told) != len(bad) {
		t.Errorf("All told of %d unreadable records, want %d", len(told), len(bad))
	}
	for k := range bad {
		var u *Unreadable
		if _, err := b.Get(k); !errors.As(err, &u) || u.Key != k {
			t.Errorf("Get(%q) gave %v, want *Unreadable of that key", k, err)
		}
		if err := b.Update(k, func(*thing) error { t.Errorf("Update edited %q", k); return nil }); err == nil {
			t.Errorf("Update of unreadable %q went well", k)
		}
	}
	if _, told, _ = b.All(); len(told) != len(bad) {
		t.Errorf("%d unreadable records are left after reading, want %d: they must not be lost", len(told), len(bad))
	}
	if err := b.Delete("cut"); err != nil {
		t.Fatal(err)
	}
	if _, told, _ = b.All(); len(told) != len(bad)-1 {
		t.Error("Delete did not remove an unreadable record")
	}
}

// FuzzDecode: whatever the file holds, decode answers and what it accepts reads back alike.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"v":1,"sum":1,"data":{"Name":"x"}}`))
	f.Add([]byte(`{"v":1`))
	b := &Bucket[thing]{name: []byte("x"), version: 1}
	f.Fuzz(func(t *testing.T, raw []byte) {
		v, err := b.decode("k", raw)
		var u *Unreadable
		if err != nil && (!errors.As(err, &u) || v != (thing{})) {
			t.Errorf("decode gave %+v, %v; want nothing and *Unreadable", v, err)
		}
	})
}

func TestMove(t *testing.T) {
	t.Parallel()
	_, b := open(t)
	if err := errors.Join(b.Put("a", thing{"a", 1}), b.Put("b", thing{"b", 2}), b.Move("a", "b", thing{"c", 3})); err != nil {
		t.Fatal(err)
	}
	all, bad, err := b.All()
	if err != nil || len(bad) > 0 || len(all) != 1 || all["b"] != (thing{"c", 3}) {
		t.Errorf("after the move there are %v, %v, %v", all, bad, err)
	}
}
