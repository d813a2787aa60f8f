// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"cmp"
	"errors"
	"io"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"

	"github.com/hashicorp/yamux"
	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/test/kvmhost/wire"
)

// frames writes output of one kind to a stream that others write to as well.
type frames struct {
	mu   *sync.Mutex
	to   io.Writer
	kind wire.Kind
}

func (f frames) Write(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(b), wire.WriteFrame(f.to, f.kind, b)
}

// execute runs a program and returns its exit code, 128+n when signal n ended it.
func execute(stream *yamux.Stream, q wire.Request) (int, error) {
	if len(q.Args) == 0 {
		return 0, errors.New("exec needs a program")
	}
	cmd := exec.Command(q.Args[0], q.Args[1:]...)
	cmd.Dir = cmp.Or(q.Dir, "/tmp")
	cmd.Env = append(os.Environ(), q.Env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	var mu sync.Mutex
	var err error
	if q.TTY {
		err = runOnTerminal(cmd, stream, frames{&mu, stream, wire.Stdout}, q)
	} else {
		err = runOnPipes(cmd, stream, frames{&mu, stream, wire.Stdout}, frames{&mu, stream, wire.Stderr})
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		status := exit.Sys().(syscall.WaitStatus)
		if status.Signaled() {
			return 128 + int(status.Signal()), nil
		}
		return status.ExitStatus(), nil
	}
	return 0, err
}

// runOnPipes does not wait for input to end: a program need not read it.
func runOnPipes(cmd *exec.Cmd, in io.Reader, stdout, stderr io.Writer) error {
	cmd.Stdout, cmd.Stderr = stdout, stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() {
		_, _ = io.Copy(stdin, in)
		_ = stdin.Close()
	}()
	return cmd.Wait()
}

func runOnTerminal(cmd *exec.Cmd, in io.Reader, out io.Writer, q wire.Request) error {
	master, slave, err := openTerminal(q.Rows, q.Columns)
	if err != nil {
		return err
	}
	defer master.Close()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr.Setctty = true
	err = cmd.Start()
	slave.Close()
	if err != nil {
		return err
	}
	go func() { _, _ = io.Copy(master, in) }()
	copied := make(chan struct{})
	go func() {
		_, _ = io.Copy(out, master) // ends with EIO when the last process has left
		close(copied)
	}()
	err = cmd.Wait()
	<-copied
	return err
}

func openTerminal(rows, columns uint16) (master, slave *os.File, err error) {
	if master, err = os.OpenFile("/dev/ptmx", os.O_RDWR, 0); err != nil {
		return nil, nil, err
	}
	fd := int(master.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil && rows > 0 {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns})
	}
	if err == nil {
		slave, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		master.Close()
		return nil, nil, err
	}
	return master, slave, nil
}

func get(stream *yamux.Stream, dir string) error {
	w := tar.NewWriter(frames{new(sync.Mutex), stream, wire.Stdout})
	return errors.Join(wire.WriteTree(w, dir), w.Close())
}
