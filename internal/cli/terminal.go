// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"os"
	"os/signal"
	"sync"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

// rawTerminal puts f into raw mode and returns what puts it back, which may be
// called more than once and from any goroutine.
func rawTerminal(f *os.File) (restore func(), err error) {
	state, err := term.MakeRaw(int(f.Fd()))
	if err != nil {
		return nil, err
	}
	return sync.OnceFunc(func() { _ = term.Restore(int(f.Fd()), state) }), nil
}

// restoreBeforeDeath lets the signals that end this process do so only after restore. stop ends that.
func restoreBeforeDeath(restore func()) (stop func()) {
	deadly, done := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(deadly, unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM)
	go func() {
		select {
		case s := <-deadly:
			restore()
			signal.Reset(s)
			_ = unix.Kill(os.Getpid(), s.(unix.Signal))
		case <-done:
		}
	}()
	return sync.OnceFunc(func() {
		signal.Stop(deadly)
		close(done)
	})
}

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// windowSize is f's size, or nil when it has none.
func windowSize(f *os.File) *v1.WindowSize {
	cols, rows, err := term.GetSize(int(f.Fd()))
	if err != nil || cols <= 0 || rows <= 0 {
		return nil
	}
	return &v1.WindowSize{Rows: uint32(rows), Cols: uint32(cols)}
}

// followWindow sends f's size now and after each change until stop is called.
func followWindow(f *os.File) (sizes <-chan *v1.WindowSize, stop func()) {
	out, done := make(chan *v1.WindowSize), make(chan struct{})
	changes := make(chan os.Signal, 1)
	signal.Notify(changes, unix.SIGWINCH)
	changes <- unix.SIGWINCH // the first size
	go func() {
		for {
			select {
			case <-changes:
			case <-done:
				return
			}
			size := windowSize(f)
			if size == nil {
				continue
			}
			select {
			case out <- size:
			case <-done:
				return
			}
		}
	}()
	return out, sync.OnceFunc(func() {
		signal.Stop(changes)
		close(done)
	})
}
