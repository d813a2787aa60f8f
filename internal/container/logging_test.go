// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package container_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/micropod/micropod/internal/container"
	"github.com/micropod/micropod/internal/container/logfile"
)

func TestLogging(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, bad := range []container.Logging{
		{Driver: "journald"}, {Driver: "none", MaxFiles: 2}, {MaxBytes: 100}, {MaxBytes: -2}, {MaxFiles: -1}, {MaxFiles: 1 << 20},
	} {
		c := config("true")
		c.Log = bad
		var invalid *container.InvalidError
		if _, _, err := w.Create(w.soon(), c, nil); !errors.As(err, &invalid) {
			t.Errorf("%+v gave %v", bad, err)
		}
	}
	bounded := config("many", "5000") // lines of 10 bytes, some 75 bytes each in the log
	bounded.Log = container.Logging{MaxBytes: 64 << 10, MaxFiles: 2}
	i := w.started(bounded)
	if e := w.waited(i.ID); e.Code != 0 {
		t.Fatal(e)
	}
	files, err := filepath.Glob(filepath.Join(filepath.Dir(i.LogPath), "*-json.log*"))
	if err != nil || len(files) != 2 {
		t.Errorf("the log is in %v, %v; want two files", files, err)
	}
	for _, f := range files {
		if st, err := os.Stat(f); err != nil || st.Size() > 64<<10+128<<10 {
			t.Errorf("%s has %d bytes, %v", f, st.Size(), err)
		}
	}
	if out, _ := w.logs(i.ID); !strings.HasSuffix(out, "000004999\n") || len(out) >= 50_000 {
		t.Errorf("of a bounded log %d bytes are there, the last %q", len(out), out[max(0, len(out)-20):])
	}

	none := config("echo", "seen")
	none.Log.Driver = container.LogNone
	i = w.create(none)
	client := w.attach(i.ID, bothFromStart)
	if _, err := w.Start(w.soon(), i.ID); err != nil {
		t.Fatal(err)
	}
	if out, _, _ := client.all(t); out != "seen\n" {
		t.Errorf("an attached client got %q", out)
	}
	err = w.Logs(w.soon(), i.ID, logfile.ReadOptions{Tail: -1, Stdout: true}, func(logfile.Entry) error { return nil })
	if !errors.Is(err, container.ErrNoLog) {
		t.Errorf("reading what is not kept gave %v", err)
	}
	if files, _ := filepath.Glob(filepath.Join(filepath.Dir(i.LogPath), "*")); len(files) != 0 {
		t.Errorf("without a log there are %v", files)
	}
}

// TestManyWriters: twenty containers that write as fast as they can, one of them over two daemons: no line is torn or lost.
func TestManyWriters(t *testing.T) {
	t.Parallel()
	const containers, lines = 20, 20_000
	w := newWorld(t, func(c *container.ServiceConfig) { c.LogBytes = 1 << 30 })
	began := time.Now()
	var all []container.Info
	for range containers {
		all = append(all, w.started(config("many", fmt.Sprint(lines))))
	}
	w.restart()
	var readers sync.WaitGroup
	for _, i := range all {
		readers.Go(func() {
			n := 0
			err := w.Logs(w.soon(), i.ID, logfile.ReadOptions{Tail: -1, Stdout: true, Stderr: true, Follow: true}, func(e logfile.Entry) error {
				if want := fmt.Sprintf("%09d\n", n); string(e.Data) != want {
					return fmt.Errorf("line %d is %q", n, e.Data)
				}
				n++
				return nil
			})
			if err != nil || n != lines {
				t.Errorf("a follower got %d lines, %v; want %d", n, err, lines)
			}
		})
	}
	readers.Wait()
	bytes := float64(containers * lines * 10)
	t.Logf("%d containers wrote %.1f MB in %s: %.1f MB/s, each line followed", containers, bytes/1e6, time.Since(began).Round(time.Millisecond), bytes/1e6/time.Since(began).Seconds())
}

// TestManyFollowers: two hundred clients follow one log.
func TestManyFollowers(t *testing.T) {
	t.Parallel()
	const followers, lines = 200, 2000
	w := newWorld(t)
	i := w.create(config("many", fmt.Sprint(lines)))
	start := make(chan struct{})
	var all, ready sync.WaitGroup
	if _, err := w.Start(w.soon(), i.ID); err != nil {
		t.Fatal(err)
	}
	for range followers {
		ready.Add(1)
		all.Go(func() {
			ready.Done()
			<-start
			n := 0
			err := w.Logs(w.soon(), i.ID, logfile.ReadOptions{Tail: -1, Stdout: true, Follow: true}, func(logfile.Entry) error { n++; return nil })
			if err != nil || n != lines {
				t.Errorf("a follower got %d lines, %v", n, err)
			}
		})
	}
	ready.Wait()
	began := time.Now()
	close(start)
	all.Wait()
	t.Logf("%d followers got %d lines each within %s", followers, lines, time.Since(began).Round(time.Millisecond))
}
