// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build !faults

// Package fault marks the points of making, starting, stopping and removing at which a test kills the daemon, a
// machine or its guest. In a build with the tag "faults" the first goroutine to reach the point that MICROPOD_FAULT
// names makes the file MICROPOD_FAULT_FILE and waits until that is gone; in every other build points are nothing.
//
// A point is named "STAGE: WHAT IS DONE", such as "create: recorded". It stands right behind what it names, before
// anything else happens. It is a leaf.
package fault

// Point marks a point.
func Point(string) {}
