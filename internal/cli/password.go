// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// readPassword asks on a terminal and reads a line without showing it, nor what was typed
// before the question stood there. A signal that ends this process meanwhile finds the
// terminal as it was.
func readPassword(f *os.File, ask func()) (string, error) {
	fd := int(f.Fd())
	before, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return "", err
	}
	restore := func() { _ = unix.IoctlSetTermios(fd, unix.TCSETS, before) }
	defer restore()
	defer onEnd(restore)()
	silent := *before
	silent.Lflag &^= unix.ECHO
	if err := unix.IoctlSetTermios(fd, unix.TCSETSF, &silent); err != nil {
		return "", err
	}
	ask()
	b, err := term.ReadPassword(fd)
	return string(b), err
}

// onEnd has a signal that ends this process call undo before, until stop is called.
func onEnd(undo func()) (stop func()) {
	signals, ended := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	go func() {
		select {
		case s := <-signals:
			undo()
			signal.Reset(s)
			_ = unix.Kill(os.Getpid(), s.(unix.Signal))
		case <-ended:
		}
	}()
	return func() {
		signal.Stop(signals)
		close(ended)
	}
}
