// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Command micropod runs OCI containers, each in a microVM of its own. See internal/cli.
package main

import (
	"context"
	"os"

	"github.com/micropod/micropod/internal/cli"
)

func main() {
	os.Exit(cli.Main(context.Background(), os.Args[1:]))
}
