// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package sparse

import (
	"os"
	"testing"
)

func TestSumIgnoresHoles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	content := make([]byte, 3<<20+100)
	copy(content[2<<20:], "something")
	content[len(content)-1] = 1
	if err := os.WriteFile(dir+"/dense", content, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(dir + "/sparse")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for at := range content {
		if content[at] != 0 {
			if _, err := f.WriteAt(content[at:at+1], int64(at)); err != nil {
				t.Fatal(err)
			}
		}
	}
	a, err := Sum(t.Context(), dir+"/dense")
	if err != nil {
		t.Fatal(err)
	}
	b, err := Sum(t.Context(), dir+"/sparse")
	if err != nil || a != b {
		t.Errorf("the sums are %s and %s (%v)", a, b, err)
	}
	if err := os.Truncate(dir+"/sparse", 4<<20); err != nil {
		t.Fatal(err)
	}
	if c, _ := Sum(t.Context(), dir+"/sparse"); c == a {
		t.Error("zeroes at the end do not show in the sum")
	}
}
