// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package ocispec

import "fmt"

// InvalidError says which part of a request cannot be carried out and how to mend it.
type InvalidError struct {
	Field  string // as on the command line, such as "--cap-add"
	Value  string
	Reason string
	Hint   string // what to do instead; may be empty
}

func (e *InvalidError) Error() string {
	if e.Value == "" {
		return fmt.Sprintf("invalid %s: %s", e.Field, e.Reason)
	}
	return fmt.Sprintf("invalid %s %q: %s", e.Field, e.Value, e.Reason)
}

// Remediation is what the user can do next.
func (e *InvalidError) Remediation() string { return e.Hint }

// maxQuoted bounds how much of a user's value an error repeats, in bytes.
const maxQuoted = 120

func invalid(field, value, reason, hint string) *InvalidError {
	if len(value) > maxQuoted {
		value = value[:maxQuoted] + "..."
	}
	return &InvalidError{Field: field, Value: value, Reason: reason, Hint: hint}
}
