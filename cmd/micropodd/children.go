// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"

	"github.com/micropod/micropod/internal/network/mmds"
	"github.com/micropod/micropod/internal/network/portproxy"
)

// others are the daemon's children that are this program too.
var others = map[string]func(args []string) error{
	"convert":      runConvert,
	portproxy.Verb: func(args []string) error { return portproxy.Main(context.Background(), args) },
	mmds.Verb:      func(args []string) error { return mmds.Main(context.Background(), args) },
}
