// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build cover

package guest_test

// coverTag: the agent of the test's machines hands over its counters.
const coverTag = true
