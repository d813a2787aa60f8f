// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Command coverage reads a coverage profile and tells how many statements ran, per
// package and in all. Generated code and what only tests use do not count. Packages come on standard input,
// one a line: those that the profile does not know are told, since all their statements
// are missing from the total. It fails when the total is under -min per cent.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
)

func main() {
	minimum := flag.Float64("min", 0, "least `per cent` of statements")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: coverage [-min PERCENT] PROFILE < PACKAGES")
		os.Exit(2)
	}
	if err := run(flag.Arg(0), *minimum, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "coverage:", err)
		os.Exit(1)
	}
}

func run(path string, minimum float64, packages io.Reader, out io.Writer) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	counts, err := readProfile(f)
	if err != nil {
		return fmt.Errorf("reading %s: %w", path, err)
	}
	var total count
	for _, pkg := range sortedKeys(counts) {
		c := counts[pkg]
		total.ran += c.ran
		total.statements += c.statements
		fmt.Fprintf(out, "%6.1f %%  %5d of %5d  %s\n", c.percent(), c.ran, c.statements, pkg)
	}
	for lines := bufio.NewScanner(packages); lines.Scan(); {
		if pkg := lines.Text(); counts[pkg] == nil && ofProduct(pkg) && !slices.Contains(withoutStatements, pkg) {
			fmt.Fprintf(out, "not in the profile, no statement counted: %s\n", pkg)
		}
	}
	fmt.Fprintf(out, "%6.1f %%  %5d of %5d  in all; at least %g %% wanted\n", total.percent(), total.ran, total.statements, minimum)
	if total.percent() < minimum {
		return fmt.Errorf("%.1f %% of the statements ran, less than %g %%", total.percent(), minimum)
	}
	return nil
}
