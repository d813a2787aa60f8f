// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"strconv"
	"strings"
	"sync"
)

// measureClones tells what idle machines of one template need of memory.
func measureClones(ctx context.Context, s *setup, r *report) error {
	before, err := memoryOf(s.daemonPID(), "Rss")
	if err != nil {
		return err
	}
	ids := make([]string, idleClones)
	gate := make(chan struct{}, 8)
	if _, err := together(idleClones, indexed(ids, gate, func() (string, error) {
		return s.micropod(ctx, "run", "-d", "busybox", "sleep", "1000000")
	})); err != nil {
		return err
	}
	var pss []float64
	for _, id := range ids {
		text, err := s.micropod(ctx, "inspect", "-f", "{{.Machine.Pid}}", id)
		if err != nil {
			return err
		}
		pid, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil {
			return err
		}
		one, err := memoryOf(pid, "Pss")
		if err != nil {
			return err
		}
		pss = append(pss, one)
	}
	after, err := memoryOf(s.daemonPID(), "Rss")
	if err != nil {
		return err
	}
	r.add("an idle machine of 100 from one template", "MB", pss, pssLimit, "proportional set size: its share of the template's pages is in it")
	r.add("daemon, more for each of them", "MB", []float64{(after - before) / idleClones}, machineLimit, "")
	_, err = s.micropod(ctx, append([]string{"rm", "-f"}, ids...)...)
	return err
}

// indexed gives each call of the result a place of its own in into, and lets as many through as gate holds.
func indexed(into []string, gate chan struct{}, do func() (string, error)) func() error {
	var mu sync.Mutex
	next := 0
	return func() error {
		gate <- struct{}{}
		defer func() { <-gate }()
		mu.Lock()
		i := next
		next++
		mu.Unlock()
		var err error
		into[i], err = do()
		return err
	}
}
