// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

func TestScratchMaker(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := &ScratchMaker{Dir: filepath.Join(dir, "cache")}
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			path, size := filepath.Join(dir, fmt.Sprint(i)), int64(1+i%2)<<30
			if err := s.Create(t.Context(), path, size); err != nil {
				t.Error(err)
				return
			}
			if out, err := exec.Command("/usr/sbin/e2fsck", "-fn", path).CombinedOutput(); err != nil {
				t.Errorf("e2fsck: %v\n%s", err, out)
			}
			if info, err := os.Stat(path); err != nil || info.Size() != size {
				t.Errorf("the disk is %+v, %v", info, err)
			}
		})
	}
	all.Wait()
	if err := s.Create(t.Context(), filepath.Join(dir, "0"), 1<<30); !errors.Is(err, os.ErrExist) {
		t.Errorf("over a disk that is there: %v", err)
	}
	if err := s.Create(t.Context(), filepath.Join(dir, "small"), 1000); err == nil {
		t.Error("a disk of 1000 bytes was made")
	}
	for i := range maxScratchSizes + 3 {
		if err := s.Create(t.Context(), filepath.Join(dir, fmt.Sprint("size", i)), int64(i+32)<<20); err != nil {
			t.Fatal(err)
		}
	}
	if kept, err := os.ReadDir(s.Dir); err != nil || len(kept) > maxScratchSizes+1 {
		t.Errorf("%d sizes are kept, %v", len(kept), err)
	}
}
