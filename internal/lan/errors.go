// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package lan

import "fmt"

// NotFoundError says that there is no such network.
type NotFoundError struct{ Ref string }

func (e *NotFoundError) Error() string { return fmt.Sprintf("no network %q", e.Ref) }

// AmbiguousError says that several networks' ids begin so.
type AmbiguousError struct{ Ref string }

func (e *AmbiguousError) Error() string {
	return fmt.Sprintf("several networks' ids begin with %q", e.Ref)
}

// ExistsError says that a network of the name is there.
type ExistsError struct{ Name string }

func (e *ExistsError) Error() string { return fmt.Sprintf("network %q exists", e.Name) }

// InvalidError says what of a request cannot be.
type InvalidError struct{ What, Reason, Hint string }

func (e *InvalidError) Error() string { return e.What + ": " + e.Reason }

// Remediation tells what to do.
func (e *InvalidError) Remediation() string { return e.Hint }

// InUseError says that machines are in the network.
type InUseError struct {
	Name     string
	Machines []string
}

func (e *InUseError) Error() string {
	return fmt.Sprintf("network %q is used by %d machines, such as %s", e.Name, len(e.Machines), e.Machines[0])
}

// NotJoinedError says that a machine is not in a network, or, with Twice, that it is already.
type NotJoinedError struct {
	Machine, Network string
	Twice            bool
}

func (e *NotJoinedError) Error() string {
	if e.Twice {
		return fmt.Sprintf("machine %s is in network %q already", e.Machine, e.Network)
	}
	return fmt.Sprintf("machine %s is not in network %q", e.Machine, e.Network)
}
