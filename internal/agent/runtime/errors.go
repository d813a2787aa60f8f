// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// What a caller must tell apart; found by errors.Is in what Start and Exec return.
var (
	// ErrCommandNotFound: the command, or the interpreter of a script, is not there (exit code 127).
	ErrCommandNotFound = errors.New("command not found")
	// ErrNotExecutable: the command is there and cannot be run (exit code 126).
	ErrNotExecutable = errors.New("command not executable")
	// ErrUser: no such user or group in the container.
	ErrUser = errors.New("unknown user or group")
	// ErrWorkingDir: the working directory is not a folder the process may enter.
	ErrWorkingDir = errors.New("unusable working directory")
	// ErrInvalid: the spec or request asks for what makes no sense or is not supported.
	ErrInvalid = errors.New("invalid container spec")
	// ErrNotFound: no container of that id.
	ErrNotFound = errors.New("no such container")
	// ErrExists: a container of that id is there already.
	ErrExists = errors.New("container exists")
	// ErrNotRunning: the container's first process has ended.
	ErrNotRunning = errors.New("container is not running")
)

// kinds of a StartError in the order of their numbers on the wire; 0 is none.
var kinds = [...]error{nil, ErrCommandNotFound, ErrNotExecutable, ErrUser, ErrWorkingDir, ErrInvalid}

// StartError is a failure between the request and execve, told by the process
// that was to become the container's.
type StartError struct {
	// Kind is one of ErrCommandNotFound, ErrNotExecutable, ErrUser, ErrWorkingDir, ErrInvalid, or nil.
	Kind error
	// Sentence says what was done to what, and what is wrong unless Errno does.
	Sentence string
	// Errno is the kernel's answer, 0 if it was not asked.
	Errno unix.Errno
}

// Error is the sentence as Docker's users know it, such as
// `exec: "foo": executable file not found in $PATH`.
func (e *StartError) Error() string {
	if e.Errno == 0 {
		return e.Sentence
	}
	return e.Sentence + ": " + e.Errno.Error()
}

// Unwrap lets errors.Is find the kind and the errno.
func (e *StartError) Unwrap() []error {
	var all []error
	if e.Kind != nil {
		all = append(all, e.Kind)
	}
	if e.Errno != 0 {
		all = append(all, e.Errno)
	}
	return all
}

// fail makes a StartError out of err, which may be an errno with or without
// sentences around it, or a StartError already, whose kind is kept.
func fail(kind error, err error) *StartError {
	var started *StartError
	if errors.As(err, &started) && started.Kind != nil {
		kind = started.Kind
	}
	var errno unix.Errno
	if errors.As(err, &errno) && errno != 0 {
		// The errno is told as data; its text stands at the end of the sentence once.
		sentence, had := strings.CutSuffix(err.Error(), ": "+errno.Error())
		if had {
			return &StartError{Kind: kind, Sentence: sentence, Errno: errno}
		}
	}
	return &StartError{Kind: kind, Sentence: err.Error()}
}

func invalid(format string, args ...any) error {
	return &StartError{Kind: ErrInvalid, Sentence: fmt.Sprintf(format, args...)}
}

func (e *StartError) wire(c *codec) {
	kind := 0
	for i, k := range kinds {
		if e.Kind == k {
			kind = i
		}
	}
	c.int(&kind)
	if kind >= 0 && kind < len(kinds) {
		e.Kind = kinds[kind]
	}
	c.str(&e.Sentence)
	errno := uint64(e.Errno)
	c.uint(&errno)
	e.Errno = unix.Errno(errno)
}
