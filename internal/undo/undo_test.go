// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package undo

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestRunTakesBackInReverseAndGoesOnAfterAFailure(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var ran []string
	var s Stack
	add := func(name string, err error) {
		s.Add(name, func(ctx context.Context) error {
			if ctx.Err() != nil {
				t.Errorf("undo %q got an ended context; the caller's cancellation must not reach it", name)
			}
			ran = append(ran, name)
			return err
		})
	}
	boom := errors.New("boom")
	add("first", nil)
	add("second", boom)
	add("third", nil)

	err := s.Run(ctx)
	if want := []string{"third", "second", "first"}; !slices.Equal(ran, want) {
		t.Errorf("undos ran as %v, want %v", ran, want)
	}
	if !errors.Is(err, boom) || !strings.Contains(err.Error(), "second") {
		t.Errorf("Run gave %v, want the error of the second, named", err)
	}
	if err := s.Run(ctx); err != nil || len(ran) != 3 {
		t.Errorf("a second Run gave %v and ran %v, want nothing done", err, ran)
	}
}

func TestReleaseForgets(t *testing.T) {
	t.Parallel()
	var s Stack
	s.Add("never", func(context.Context) error { t.Error("a released undo ran"); return nil })
	s.Release()
	if err := s.Run(t.Context()); err != nil {
		t.Errorf("Run after Release gave %v", err)
	}
}
