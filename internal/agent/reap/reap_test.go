// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package reap_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/agent/reap"
)

// subreaper as first argument makes the test binary a child subreaper that reaps orphans.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "subreaper" {
		subreaper()
	}
	os.Exit(m.Run())
}

func TestStatusOfEachChildIsItsOwn(t *testing.T) {
	t.Parallel()
	r := reap.New(reap.Config{})
	defer r.Close()
	var wg sync.WaitGroup
	for code := range 40 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			c, err := r.StartCommand(exec.Command("/bin/sh", "-c", fmt.Sprintf("exit %d", code)))
			if err != nil {
				t.Errorf("starting child %d: %v", code, err)
				return
			}
			got, err := c.Wait(t.Context())
			if err != nil || got.Code != code || got.Signal != 0 || got.At.IsZero() {
				t.Errorf("child that exits with %d: got %+v, %v", code, got, err)
			}
		}()
	}
	wg.Wait()
}

func TestWithoutOrphansOthersKeepTheirChildren(t *testing.T) {
	t.Parallel()
	r := reap.New(reap.Config{})
	defer r.Close()
	for i := range 20 {
		cmd := exec.Command("/bin/sh", "-c", "exit 7")
		c, err := r.StartCommand(exec.Command("/bin/true")) // its SIGCHLD wakes the collector
		if err != nil {
			t.Fatal(err)
		}
		err = cmd.Run()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 7 {
			t.Fatalf("round %d: os/exec's own child: got %v, want exit status 7: the reaper took it", i, err)
		}
		if _, err := c.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestEndBySignal(t *testing.T) {
	t.Parallel()
	r := reap.New(reap.Config{})
	defer r.Close()
	c, err := r.StartCommand(exec.Command("/bin/sleep", "1000"))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-c.Done()
	if got := c.Status(); got.Code != 143 || got.Signal != syscall.SIGTERM {
		t.Errorf("got %+v, want code 143 by SIGTERM", got)
	}
	if err := c.Signal(syscall.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("signal to an ended process: got %v, want os.ErrProcessDone", err)
	}
}

func TestWaitEndsWithItsContext(t *testing.T) {
	t.Parallel()
	r := reap.New(reap.Config{})
	defer r.Close()
	c, err := r.StartCommand(exec.Command("/bin/sleep", "1000"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	if err := c.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Wait(t.Context()); err != nil || got.Code != 137 {
		t.Errorf("got %+v, %v, want code 137", got, err)
	}
}

func TestForkThatFails(t *testing.T) {
	t.Parallel()
	r := reap.New(reap.Config{})
	defer r.Close()
	if _, err := r.StartCommand(exec.Command("/nonexistent")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want os.ErrNotExist", err)
	}
}

func TestOrphansAreReaped(t *testing.T) {
	t.Parallel()
	out, err := exec.Command(os.Args[0], "subreaper").CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "registered exited 9, no child left" {
		t.Errorf("got %q, %v", out, err)
	}
}

// subreaper inherits an orphan from a child of its own and waits until both are gone.
func subreaper() {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		panic(err)
	}
	r := reap.New(reap.Config{Orphans: true})
	// The orphan holds the pipe open: its end is seen as end of file.
	read, write, err := os.Pipe()
	if err != nil {
		panic(err)
	}
	cmd := exec.Command("/bin/sh", "-c", "(read line; exit 3) <&3 & exit 9")
	hold, release, err := os.Pipe()
	if err != nil {
		panic(err)
	}
	cmd.ExtraFiles = []*os.File{hold, write}
	c, err := r.StartCommand(cmd)
	if err != nil {
		panic(err)
	}
	write.Close()
	hold.Close()
	<-c.Done()
	release.Close()
	read.Read(make([]byte, 1)) //nolint:errcheck // end of file is what is waited for
	// Its zombie may come a moment after its descriptors are closed.
	for {
		err := unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if errors.Is(err, unix.ECHILD) {
			break
		}
	}
	fmt.Printf("registered exited %d, no child left\n", c.Status().Code)
	os.Exit(0)
}
