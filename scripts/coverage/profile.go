// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
)

// withoutStatements lists packages that have nothing but generated code.
var withoutStatements = []string{
	"github.com/micropod/micropod/api/agent/v1",
	"github.com/micropod/micropod/api/micropod/v1",
	"github.com/micropod/micropod/api/micropod/v1/micropodv1connect",
}

// count is a number of statements and how many of them ran.
type count struct{ ran, statements int }

func (c count) percent() float64 {
	if c.statements == 0 {
		return 0
	}
	return 100 * float64(c.ran) / float64(c.statements)
}

// readProfile reads lines "FILE:BLOCK STATEMENTS TIMES" below a first line "mode: ...".
// A block that is there twice ran if either did.
func readProfile(r io.Reader) (map[string]*count, error) {
	type block struct {
		statements int
		ran        bool
	}
	blocks := map[string]block{}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "mode:") {
			continue
		}
		var where string
		var statements, times int
		if _, err := fmt.Sscan(lines.Text(), &where, &statements, &times); err != nil {
			return nil, fmt.Errorf("line %q: %w", lines.Text(), err)
		}
		blocks[where] = block{statements, blocks[where].ran || times > 0}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	counts := map[string]*count{}
	for where, b := range blocks {
		file, _, _ := strings.Cut(where, ":")
		if !counted(file) {
			continue
		}
		pkg := path.Dir(file)
		if counts[pkg] == nil {
			counts[pkg] = &count{}
		}
		counts[pkg].statements += b.statements
		if b.ran {
			counts[pkg].ran += b.statements
		}
	}
	return counts, nil
}

// counted says whether a file is a part of the product that someone wrote.
func counted(file string) bool {
	for _, generated := range []string{".pb.go", ".connect.go"} {
		if strings.HasSuffix(file, generated) {
			return false
		}
	}
	return ofProduct(path.Dir(file))
}

// ofProduct is false for what only tests and developers use: test/, scripts/, and suites
// and oracles beside the product (vmmtest, erofstest).
func ofProduct(pkg string) bool {
	pkg = strings.TrimPrefix(pkg, "github.com/micropod/micropod/")
	for part := range strings.SplitSeq(pkg, "/") {
		if strings.HasSuffix(part, "test") || part == "scripts" {
			return false
		}
	}
	return true
}

func sortedKeys(m map[string]*count) []string { return slices.Sorted(maps.Keys(m)) }
