// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"errors"
	"fmt"
	"strings"
)

// ErrShutdown is returned when the service lets go of its machines: they go on,
// the daemon ends.
var ErrShutdown = errors.New("the daemon is shutting down")

// ErrEnded is the cause when a machine's run ended while something was waited for.
var ErrEnded = errors.New("the machine ended")

// ErrInterrupted is the cause when Stop or Delete cut an operation short.
var ErrInterrupted = errors.New("interrupted by a stop or delete")

// ErrNoAgent says that the binary which runs in guests is not where it should be.
var ErrNoAgent = errors.New("the guest agent is not installed")

// NotFoundError: no machine has this id, prefix or name.
type NotFoundError struct{ Ref string }

func (e *NotFoundError) Error() string { return fmt.Sprintf("no machine %q", e.Ref) }

// AmbiguousError: several machines have an id that begins so.
type AmbiguousError struct {
	Ref   string
	Count int
}

func (e *AmbiguousError) Error() string {
	return fmt.Sprintf("%q begins the id of %d machines", e.Ref, e.Count)
}

// InUseError: another machine has this id or name.
type InUseError struct {
	What  string // "id" or "name"
	Value string
	By    string // id of the other
}

func (e *InUseError) Error() string {
	return fmt.Sprintf("%s %q is in use by machine %s", e.What, e.Value, e.By)
}

// SpecError: a field of a Spec is wrong.
type SpecError struct {
	Field, Problem string
	Mend           string // what to do; may be empty
}

func (e *SpecError) Error() string { return "machine's " + e.Field + ": " + e.Problem }

// StateError: the machine's state does not allow the action.
type StateError struct {
	ID     string
	Action string // such as "start"
	State  State
	Reason string // the machine's, when it tells more
}

func (e *StateError) Error() string {
	s := fmt.Sprintf("cannot %s machine %s: it is %s", e.Action, e.ID, e.State)
	if e.Reason != "" {
		s += " (" + e.Reason + ")"
	}
	return s
}

// StepError: a step of making or starting a machine failed; everything before it
// was taken back.
type StepError struct {
	ID, Step string
	Err      error
	Console  string // the last lines of the guest's console; may be empty
	Undo     error  // what could not be taken back; nil mostly
}

func (e *StepError) Error() string {
	s := fmt.Sprintf("machine %s: %s: %v", e.ID, e.Step, e.Err)
	if e.Console != "" {
		s += "; the guest's console ended with:\n  " + strings.ReplaceAll(e.Console, "\n", "\n  ")
	}
	if e.Undo != nil {
		s += "; and taking it back: " + e.Undo.Error()
	}
	return s
}

func (e *StepError) Unwrap() error { return e.Err }

// What the user can do next, for those errors that know. The API hands it on.

// Remediation implements the API's hint.
func (e *NotFoundError) Remediation() string { return "list machines with: micropod vm ls" }

// Remediation implements the API's hint.
func (e *AmbiguousError) Remediation() string { return "give more digits of the id, or the name" }

// Remediation implements the API's hint.
func (e *InUseError) Remediation() string {
	return "choose another " + e.What + ", or remove that machine"
}

// Remediation implements the API's hint.
func (e *SpecError) Remediation() string { return e.Mend }

// Remediation implements the API's hint.
func (e *StateError) Remediation() string {
	switch {
	case e.State == Unknown:
		return "restart the daemon to have it judged again, or remove it by force"
	case e.Action == "delete":
		return "stop it first, or remove it by force"
	case e.State == Stopped || e.State == Error:
		return "start it first"
	default:
		return ""
	}
}
