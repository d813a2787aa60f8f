// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build !cover

package guest

import "context"

// beforeShutdown has something to do only in builds with the tag "cover".
func (*Session) beforeShutdown(context.Context) {}
