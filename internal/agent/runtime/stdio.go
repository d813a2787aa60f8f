// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// stdio is the standard streams of a process to be: the child's ends, and ours.
type stdio struct {
	theirs [3]*os.File // -> the process; closed once it has them. nil with a terminal
	stdin  io.WriteCloser
	stdout io.ReadCloser
	stderr io.ReadCloser
}

// newStdio makes pipes. Without stdin the process reads null.
func newStdio(stdin bool, null *os.File) (*stdio, error) {
	s := &stdio{}
	if stdin {
		read, write, err := newPipe("stdin")
		if err != nil {
			return nil, err
		}
		s.theirs[0], s.stdin = read, newPipeFile(write, "stdin")
	} else {
		fd, err := unix.FcntlInt(null.Fd(), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			return nil, err
		}
		s.theirs[0] = os.NewFile(uintptr(fd), os.DevNull)
	}
	for i, ours := range []*io.ReadCloser{&s.stdout, &s.stderr} {
		read, write, err := newOutput([]string{"stdout", "stderr"}[i])
		if err != nil {
			s.close()
			return nil, err
		}
		s.theirs[1+i], *ours = write, read
	}
	return s, nil
}

// newPipe makes a pipe of which the process gets the reading end, which blocks as programs expect.
func newPipe(name string) (read *os.File, write int, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, -1, err
	}
	return os.NewFile(uintptr(fds[0]), name), fds[1], nil
}

// newOutput is newPipe the other way round.
func newOutput(name string) (ours, theirs *os.File, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, err
	}
	return newPipeFile(fds[0], name), os.NewFile(uintptr(fds[1]), name), nil
}

// newPipeFile makes a file that Go waits for without a thread, and that Close and deadlines interrupt.
func newPipeFile(fd int, name string) *os.File {
	_ = unix.SetNonblock(fd, true)
	return os.NewFile(uintptr(fd), name)
}

// fds are the process's ends, in order; none with a terminal.
func (s *stdio) fds() []int {
	var fds []int
	for _, f := range s.theirs {
		if f != nil {
			fds = append(fds, int(f.Fd()))
		}
	}
	return fds
}

// handedOver closes the process's ends, which it has duplicates of.
func (s *stdio) handedOver() {
	for _, f := range s.theirs {
		if f != nil {
			f.Close()
		}
	}
}

// close closes all ends.
func (s *stdio) close() {
	s.handedOver()
	for _, c := range []io.Closer{s.stdin, s.stdout, s.stderr} {
		if c != nil {
			c.Close()
		}
	}
}

// terminalStream is the master of a terminal, shared by its reader and its writer: the
// master is closed, which hangs the terminal up, when the reader is.
type terminalStream struct {
	*os.File
	once *sync.Once
}

// Read gives end of file where the kernel says EIO: no process has the terminal open any more.
func (t terminalStream) Read(b []byte) (int, error) {
	n, err := t.File.Read(b)
	if errors.Is(err, unix.EIO) {
		return n, io.EOF
	}
	return n, err
}

func (t terminalStream) Close() error {
	err := fs.ErrClosed
	t.once.Do(func() { err = t.File.Close() })
	return err
}

// terminalInput writes to a terminal. Closing it ends only the writing: a terminal has no half-close.
type terminalInput struct {
	master *os.File
	mu     sync.Mutex
	closed bool
}

// Write passes bytes to the terminal as if typed.
func (t *terminalInput) Write(b []byte) (int, error) {
	t.mu.Lock()
	closed := t.closed
	t.mu.Unlock()
	if closed {
		return 0, fs.ErrClosed
	}
	return t.master.Write(b)
}

// Close refuses further writes; the terminal lives on.
func (t *terminalInput) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	return nil
}
