// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package judge_test

import (
	"strings"
	"testing"

	"github.com/micropod/micropod/test/judge"
)

func TestVerdict(t *testing.T) {
	t.Parallel()
	whole := "TAP version 13\nok 1 - has hostname\n  ---\n  {}\n  ...\nnot ok 2 - has user\n  ---\n  expected: 1\n  ...\nok 3 # SKIP not set\nnot ok 4 # TODO x\nnot ok 5 - /dev/console (default device) has the expected major ID\n1..5\n"
	got, err := judge.Verdict(whole)
	if err != nil || got.Passed != 1 || got.Skipped != 3 || len(got.Failed) != 1 || !strings.Contains(got.Failed[0], "expected: 1") {
		t.Errorf("got %+v, %v", got, err)
	}
	for name, output := range map[string]string{
		"empty": "", "no plan": "ok 1 - x\n", "cut off": "ok 1 - x\n1..2\n", "broken plan": "1..x\n", "nothing checked": "1..0\n",
	} {
		if got, err := judge.Verdict(output); err == nil {
			t.Errorf("%s: got %+v without an error", name, got)
		}
	}
}
