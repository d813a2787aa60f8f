// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package runtime

import "testing"

func TestPlainProcess(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	got := shell(t, r, "echo out; echo err >&2; hostname; exit 42")
	if got.Code != 42 || got.out != "out\nbox\n" || got.err != "err\n" {
		t.Errorf("got %+v", got)
	}
}
