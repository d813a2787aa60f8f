// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"regexp"
	"strings"
	"testing"
)

func TestLogs(t *testing.T) {
	t.Parallel()
	h, name := shared, shared.name(t)
	h.must(t, "run", "-d", "--name", name, "busybox", "sh", "-c",
		"echo one; echo two >&2; printf 'no newline'; while [ ! -e /go ]; do sleep 0.1; done; echo; echo three; while [ ! -e /end ]; do sleep 0.1; done; echo four")
	follow := h.cmd(testContext(t), "logs", "-f", name)
	stdout, err := follow.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := follow.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stdout)
	next := func(want string) {
		t.Helper()
		if !lines.Scan() || lines.Text() != want {
			t.Errorf("logs -f: got %q, want %q (%v)", lines.Text(), want, lines.Err())
		}
	}
	next("one")
	h.must(t, "exec", name, "touch", "/go")
	next("no newline")
	next("three")
	h.must(t, "exec", name, "touch", "/end")
	next("four")
	if lines.Scan() {
		t.Errorf("logs -f goes on after the end: %q", lines.Text())
	}
	if err := follow.Wait(); err != nil {
		t.Errorf("logs -f: %v", err)
	}
	r := h.run(t, "logs", name)
	if r.stdout != "one\nno newline\nthree\nfour\n" || r.stderr != "two\n" {
		t.Errorf("logs:\n%v", r)
	}
	if tail := h.must(t, "logs", "--tail", "1", name); tail != "four" {
		t.Errorf("--tail 1: %q", tail)
	}
	stamped := h.must(t, "logs", "-t", "-n", "1", name)
	if !regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z four$`).MatchString(stamped) {
		t.Errorf("logs -t: %q", stamped)
	}
	stamp, _, _ := strings.Cut(stamped, " ")
	if since := h.must(t, "logs", "--since", stamp, name); since != "four" {
		t.Errorf("--since %s: %q", stamp, since)
	}
	console := h.must(t, "logs", "--console", name)
	_ = console // a quiet boot may write nothing; that the call answers is what counts here
}
