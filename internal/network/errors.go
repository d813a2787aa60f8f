// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"errors"
	"fmt"
	"net/netip"
)

// What can be wrong with a request. Errors of the types below say more.
var (
	ErrNoNetwork    = errors.New("no such network")
	ErrNoSlot       = errors.New("no such slot")
	ErrNetworkInUse = errors.New("the network is in use")
)

// AddressError says that an address or subnet cannot be had, and why.
type AddressError struct {
	What   string // as it was given
	Reason string
}

func (e *AddressError) Error() string { return e.What + ": " + e.Reason }

func badAddr(a netip.Addr, format string, args ...any) error {
	return &AddressError{a.String(), fmt.Sprintf(format, args...)}
}

func badPrefix(p netip.Prefix, format string, args ...any) error {
	return &AddressError{p.String(), fmt.Sprintf(format, args...)}
}
