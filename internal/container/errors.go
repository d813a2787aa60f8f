// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package container

import (
	"errors"
	"fmt"

	"github.com/micropod/micropod/internal/container/ocispec"
)

// InvalidError says which part of a request cannot be carried out.
type InvalidError = ocispec.InvalidError

// Errors that callers tell apart.
var (
	// ErrShutdown is returned when the daemon lets go of its containers: they go on.
	ErrShutdown = errors.New("the daemon is shutting down")
	// ErrInterrupted is the cause when Remove by force cut an operation short.
	ErrInterrupted = errors.New("interrupted by a removal")
	// ErrRemoved is the cause when a container that was waited for was removed.
	ErrRemoved = errors.New("the container was removed")
)

// NotFoundError: no container has this id, prefix or name; or none of its processes this id.
type NotFoundError struct {
	Ref  string
	Exec string // when the container is there, but not this process
}

func (e *NotFoundError) Error() string {
	if e.Exec != "" {
		return fmt.Sprintf("no process %q in container %q", e.Exec, e.Ref)
	}
	return fmt.Sprintf("no container %q", e.Ref)
}

// AmbiguousError: several containers have an id that begins so.
type AmbiguousError struct {
	Ref   string
	Count int
}

func (e *AmbiguousError) Error() string {
	return fmt.Sprintf("%q begins the id of %d containers", e.Ref, e.Count)
}

// NameInUseError: another container has this name.
type NameInUseError struct {
	Name  string
	Owner string // id of the other
}

func (e *NameInUseError) Error() string {
	return fmt.Sprintf("the name %q is in use by container %s", e.Name, e.Owner[:min(12, len(e.Owner))])
}

// Remediation is what the user can do next.
func (e *NameInUseError) Remediation() string {
	return fmt.Sprintf("remove that one (micropod rm %s) or choose another name", e.Name)
}

// StateError: the container's state does not allow the action.
type StateError struct {
	ID     string
	Name   string
	Action string // such as "start"
	State  State
}

func (e *StateError) Error() string {
	return fmt.Sprintf("cannot %s container %s: it is %s", e.Action, e.Name, e.State)
}

// Remediation is what the user can do next.
func (e *StateError) Remediation() string {
	switch {
	case e.Action == "remove":
		return "stop it first, or remove it by force (-f)"
	case e.State == Suspended:
		return fmt.Sprintf("wake it: micropod start %s", e.Name)
	case e.State == Paused:
		return fmt.Sprintf("let it run on: micropod unpause %s", e.Name)
	case e.State == Created || e.State == Exited || e.State == Error:
		return fmt.Sprintf("start it: micropod start %s", e.Name)
	default:
		return ""
	}
}

// StartError: a container or a further process could not be started. What was begun was taken back.
type StartError struct {
	ID       string
	ExitCode int // what a command line should exit with: 125, 126 or 127
	Err      error
}

func (e *StartError) Error() string { return e.Err.Error() }

// Unwrap returns why.
func (e *StartError) Unwrap() error { return e.Err }
