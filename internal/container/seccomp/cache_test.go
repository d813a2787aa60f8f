// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"fmt"
	"testing"
)

// TestCompileTellsItsInputsApart: what was made for one set of capabilities, profile or kernel is not another's.
func TestCompileTellsItsInputsApart(t *testing.T) {
	allow := func(name string) string {
		return fmt.Sprintf(`{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":[%q],"action":"SCMP_ACT_ALLOW"}]}`, name)
	}
	inputs := []struct {
		profile, kernel string
		caps            []string
	}{
		{"", "", nil}, {"", "", []string{"CAP_SYS_ADMIN"}}, {"", "4.2", nil}, {allow("read"), "", nil}, {allow("write"), "", nil},
	}
	first := map[string]bool{}
	for range 2 {
		for _, in := range inputs {
			filter, _, err := Compile(in.profile, in.caps, in.kernel)
			if err != nil {
				t.Fatal(err)
			}
			first[filter] = true
		}
	}
	if len(first) != len(inputs) {
		t.Errorf("%d inputs gave %d filters", len(inputs), len(first))
	}
	for i := range 3 * maxCompiled {
		if _, _, err := Compile("", nil, fmt.Sprintf("6.%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	compiled.Lock()
	defer compiled.Unlock()
	if n := len(compiled.filters); n > maxCompiled {
		t.Errorf("%d filters are kept, want at most %d", n, maxCompiled)
	}
}
