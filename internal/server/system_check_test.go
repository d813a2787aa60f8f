// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"connectrpc.com/connect"

	v1 "github.com/micropod/micropod/api/micropod/v1"
	"github.com/micropod/micropod/internal/machine"
)

func TestCheckFindsAndMends(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	check := func(repair bool) []*v1.Finding {
		t.Helper()
		answer, err := w.system.Check(t.Context(), connect.NewRequest(&v1.CheckRequest{Repair: repair}))
		if err != nil {
			t.Fatal(err)
		}
		return answer.Msg.Findings
	}
	if found := check(true); len(found) != 0 {
		t.Fatalf("in order, and yet %v", found)
	}
	stray := filepath.Join(w.machines.RunDir, "machines", "feed")
	if err := os.MkdirAll(stray, 0o700); err != nil {
		t.Fatal(err)
	}
	mended := false
	w.owned.findings = []machine.Finding{
		{Object: "container a", Problem: "p", Mend: "remove it"},
		{Object: "container b", Problem: "q", Repair: func(context.Context) error { mended = true; return nil }},
		{Object: "container c", Problem: "r", Repair: func(context.Context) error { return errors.New("boom") }},
	}
	if found := check(false); len(found) != 4 || mended || found[3].Object != "folder "+stray || found[3].Repaired || found[0].Mend != "remove it" {
		t.Errorf("looking gave %v; mended: %v", found, mended)
	}
	found := check(true)
	if len(found) != 4 || !mended || found[0].Repaired || !found[1].Repaired || found[2].Repaired || found[2].Error != "boom" || !found[3].Repaired {
		t.Errorf("mending gave %v", found)
	}
	if _, err := os.Stat(stray); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder is still there: %v", err)
	}
	w.owned.findings = nil
	if err := os.Remove(filepath.Join(w.machines.DataDir, "state.db")); err != nil {
		t.Fatal(err)
	}
	if found := check(true); len(found) != 1 || found[0].Object != "state database" || !strings.Contains(found[0].Problem, "no longer there") || found[0].Repaired {
		t.Errorf("without the database's file: %v", found)
	}
}
