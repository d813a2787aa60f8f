// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

// Exit codes beside those of the container's own process. They are Docker's.
const (
	exitFailure = 1   // a verb failed
	exitDaemon  = 125 // a runLike verb failed; the daemon's ErrorDetail tells when it is 126 or 127
	exitSignal  = 128 // plus the signal's number
)

// exitCodes is the table of docs/cli.md.
var exitCodes = []struct{ code, of, means string }{
	{"0", "every verb", "it did what was asked for"},
	{"1", "every verb but those below", "it failed; of several targets, at least one"},
	{"1", "doctor", "machines cannot run here"},
	{"0-255", "run, exec, attach, start -a", "the exit code of the container's process"},
	{"125", "run, create, exec, attach, start -a", "micropod itself failed: the process did not run, or its end is not known"},
	{"126", "run, exec, start -a", "the command is there and cannot be invoked"},
	{"127", "run, exec, start -a", "the command was not found"},
	{"128+n", "run, exec, attach, start -a", "signal n ended the process, or the command before the process ran (130: Ctrl-C)"},
}

// runLike marks the verbs whose own failures exit with 125, since lower
// codes are the container's.
const runLike = "micropod.exit125"

// exitCode ends the command with a code and nothing to say: the container's own end.
type exitCode int

func (e exitCode) Error() string { return "exit status " + strconv.Itoa(int(e)) }

// usageError is a command line that cannot be understood.
type usageError struct{ message, hint string }

func (e *usageError) Error() string { return e.message }

func usagef(hint, format string, args ...any) error {
	return &usageError{message: fmt.Sprintf(format, args...), hint: hint}
}

func usageFailure(c *cobra.Command, err error) error {
	return &usageError{message: err.Error(), hint: "'" + c.CommandPath() + " --help' explains the flags"}
}

// failure is what is told of an error, on a terminal or as JSON. The field
// names are those of the API's ErrorDetail.
type failure struct {
	Code        string `json:"code"`
	Message     string `json:"message"`
	Cause       string `json:"cause,omitempty"`
	Remediation string `json:"remediation,omitempty"`
	exit        int
}

// fail prints err as the command's user wants it and returns the exit code.
func (a *app) fail(c *cobra.Command, err error) int {
	var code exitCode
	if errors.As(err, &code) {
		return int(code)
	}
	f := describe(err)
	if f.exit == 0 {
		f.exit = exitFailure
		if c != nil && c.Annotations[runLike] != "" {
			f.exit = exitDaemon
		}
	}
	if a.wantsJSON(c) {
		line, _ := json.Marshal(f)
		fmt.Fprintln(a.err, string(line))
		return f.exit
	}
	a.printFailure(f)
	return f.exit
}

func (a *app) printFailure(f failure) {
	for _, line := range strings.Split(strings.TrimRight(f.Message, "\n"), "\n") {
		fmt.Fprintf(a.err, "micropod: %s\n", printable(line))
	}
	if f.Remediation != "" {
		fmt.Fprintf(a.err, "hint: %s\n", printable(f.Remediation))
	}
}

// describe turns any error into what users are told of it.
func describe(err error) failure {
	var usage *usageError
	if errors.As(err, &usage) {
		return failure{Code: "usage", Message: err.Error(), Remediation: usage.hint}
	}
	var noDaemon *daemonError
	if errors.As(err, &noDaemon) {
		return failure{Code: "daemon_unreachable", Message: err.Error(), Remediation: noDaemon.hint}
	}
	if d := errorDetail(err); d != nil {
		return failure{Code: d.Code, Message: d.Message, Cause: d.Cause, Remediation: d.Remediation, exit: int(d.ExitCode)}
	}
	var remote *connect.Error
	if errors.As(err, &remote) {
		return failure{Code: remote.Code().String(), Message: remote.Message(), Remediation: lostMend(remote)}
	}
	if errors.Is(err, context.Canceled) {
		return failure{Code: "canceled", Message: "canceled"}
	}
	return failure{Code: "failed", Message: err.Error()}
}

// lostMend is what to do when the daemon went away in the middle of a call.
func lostMend(err *connect.Error) string {
	if connect.IsWireError(err) && err.Code() != connect.CodeUnavailable || !daemonGone(err) {
		return ""
	}
	return "the daemon ended or was restarted: try again; RUN_DIR/micropodd.log tells why"
}

// errorDetail is what the daemon said for programs, or nil.
func errorDetail(err error) *v1.ErrorDetail {
	var remote *connect.Error
	if !errors.As(err, &remote) {
		return nil
	}
	for _, detail := range remote.Details() {
		value, err := detail.Value()
		if err != nil {
			continue
		}
		if d, ok := value.(*v1.ErrorDetail); ok {
			return d
		}
	}
	return nil
}

// wantsJSON: who asked for JSON gets failures as JSON. Where it is the default, people are told in words.
func (a *app) wantsJSON(c *cobra.Command) bool {
	if a.errorFormat != "" || c == nil {
		return a.errorFormat == "json"
	}
	f := c.Flags().Lookup("format")
	return f != nil && f.Changed && f.Value.String() == "json"
}

// each does something to every target, prints the names of those done and
// goes on after a failure; the failures are printed as they come.
func (a *app) each(c *cobra.Command, targets []string, do func(string) (string, error)) error {
	worst := 0
	for _, t := range targets {
		done, err := do(t)
		if err != nil {
			worst = max(worst, a.fail(c, err))
			continue
		}
		if done != "" {
			fmt.Fprintln(a.out, done)
		}
	}
	if worst != 0 {
		return exitCode(worst)
	}
	return nil
}

// onEach is what a command does that acts on each of its words through the daemon, and prints it then.
func (a *app) onEach(do func(ctx context.Context, client *client, target string) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, targets []string) error {
		client, err := a.connect(c.Context())
		if err != nil {
			return err
		}
		return a.each(c, targets, func(target string) (string, error) { return target, do(c.Context(), client, target) })
	}
}

// choice is a flag that takes one of some words.
type choice struct {
	value *string
	words []string
}

func (c *choice) String() string {
	if c.value == nil {
		return ""
	}
	return *c.value
}
func (c *choice) Type() string { return strings.Join(c.words, "|") }
func (c *choice) Set(s string) error {
	if !slices.Contains(c.words, s) {
		return fmt.Errorf("it is one of %s", strings.Join(c.words, ", "))
	}
	*c.value = s
	return nil
}

func quote(s string) string { return strconv.Quote(s) }

// printable keeps terminal escapes of a name or message out of the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\t' || strconv.IsPrint(r) {
			return r
		}
		return '\uFFFD'
	}, s)
}
