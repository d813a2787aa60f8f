// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// What an error is survives the way from child to parent.
func TestFaultsTravel(t *testing.T) {
	t.Parallel()
	for kind, sentinel := range faultKinds {
		in := &LayerError{Index: 2, Err: fmt.Errorf("reading: %w", sentinel)}
		out := packError(in).unpack(3)
		var layer *LayerError
		if !errors.Is(out, sentinel) || out.Error() != in.Error() || !errors.As(out, &layer) || layer.Index != 2 {
			t.Errorf("%s: got %v, want %v", kind, out, in)
		}
		if out := packError(in).unpack(2); errors.As(out, &layer) || !errors.Is(out, sentinel) {
			t.Errorf("%s: got %v, want no layer that was not given", kind, out)
		}
	}
	if out := packError(errors.New(strings.Repeat("x", 9999))).unpack(1); len(out.Error()) != maxFaultText {
		t.Errorf("got a text of %d bytes, want %d", len(out.Error()), maxFaultText)
	}
}

func TestProgressIsToldInSteps(t *testing.T) {
	t.Parallel()
	from, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	tell := tellProgress(to)
	const total = 3*progressStep + 5
	for done := int64(0); done < total; done += 1 << 10 {
		tell(done, total)
	}
	tell(total, total)
	to.Close()
	var heard []int64
	c := &conversion{sizes: []int64{total}, progress: func(done, _ int64) { heard = append(heard, done) }}
	if _, err := c.listen(from); err != nil || len(heard) != 4 || heard[3] != total {
		t.Errorf("heard %v, %v; want three steps and the end", heard, err)
	}
}

// TestDeaths has processes end in every way that a child may.
func TestDeaths(t *testing.T) {
	t.Parallel()
	c := &conversion{}
	for _, test := range []struct {
		script string
		want   error
	}{
		{"kill -XCPU $$", ErrLimit},
		{"kill -SEGV $$", ErrConverter},
		{"echo 'fatal error: runtime: out of memory' >&2; exit 2", ErrLimit},
		{"echo 'panic: oh' >&2; yes | head -c 100000 >&2; exit 2", ErrConverter},
		{"exit 0", ErrConverter},
	} {
		var stderr headBuffer
		cmd := exec.Command("sh", "-c", test.script)
		cmd.Stderr = &stderr
		err := cmd.Run()
		if _, err := c.judge(message{}, err, stderr.String()); !errors.Is(err, test.want) || len(err.Error()) > 300 {
			t.Errorf("%s: got %v, want %v", test.script, err, test.want)
		}
		if stderr.kept.Len() > maxStderr {
			t.Errorf("%s: kept %d bytes", test.script, stderr.kept.Len())
		}
	}
	if _, err := c.judge(message{Fault: packError(syscall.ENOSPC)}, nil, ""); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a full disk: got %v", err)
	}
}
