// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Command describe prints the tree below a folder, as a guest's kernel shows it. Tests put
// it into an image and compare what it says with what this host's kernel shows.
package main

import (
	"fmt"
	"os"

	"github.com/micropod/micropod/internal/erofs/erofstest"
)

func main() {
	tree, err := erofstest.Describe(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "describe:", err)
		os.Exit(1)
	}
	fmt.Print(tree)
}
