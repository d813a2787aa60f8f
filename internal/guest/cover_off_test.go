// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build !cover

package guest_test

// coverTag: see cover_on_test.go.
const coverTag = false
