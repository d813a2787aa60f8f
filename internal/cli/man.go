// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/micropod/micropod/internal/version"
)

// ManPages makes a manual page (man(7) macros, section 1) for every command, by file name. They hold no date, so that
// the same commands give the same bytes.
func ManPages() map[string]string {
	root := newRoot(&app{in: os.Stdin, out: os.Stdout, err: os.Stderr})
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	pages := map[string]string{}
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Hidden || c.Name() == "help" {
			return
		}
		pages[pageName(c)+".1"] = manPage(c)
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(root)
	return pages
}

func pageName(c *cobra.Command) string { return strings.ReplaceAll(c.CommandPath(), " ", "-") }

// roff keeps text from being taken for requests and escapes (groff_char(7), man(7)).
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text)
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, ".") || strings.HasPrefix(l, "'") {
			lines[i] = `\&` + l
		}
	}
	return strings.Join(lines, "\n")
}

func manPage(c *cobra.Command) string {
	var b strings.Builder
	fmt.Fprintf(&b, ".TH %q 1 \"\" \"micropod %s\" \"micropod manual\"\n", strings.ToUpper(pageName(c)), version.Version)
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n", roff(pageName(c)), roff(c.Short))
	fmt.Fprintf(&b, ".SH SYNOPSIS\n.B %s\n", roff(c.UseLine()))
	long := c.Long
	if long == "" {
		long = c.Short + "."
	}
	fmt.Fprintf(&b, ".SH DESCRIPTION\n%s\n", strings.ReplaceAll(roff(long), "\n\n", "\n.PP\n"))
	manFlags(&b, "OPTIONS", c.NonInheritedFlags().FlagUsages())
	if c.HasParent() {
		manFlags(&b, "GLOBAL OPTIONS", c.InheritedFlags().FlagUsages())
	}
	if c.Example != "" {
		fmt.Fprintf(&b, ".SH EXAMPLES\n.nf\n%s\n.fi\n", roff(c.Example))
	}
	b.WriteString(".SH EXIT STATUS\n")
	for _, e := range exitCodes {
		fmt.Fprintf(&b, ".TP\n.B %s\n%s: %s\n", roff(e.code), roff(e.of), roff(e.means))
	}
	if related := relatedPages(c); len(related) > 0 {
		fmt.Fprintf(&b, ".SH SEE ALSO\n%s\n", strings.Join(related, "\n"))
	}
	return b.String()
}

func manFlags(b *strings.Builder, title, usages string) {
	if usages != "" {
		fmt.Fprintf(b, ".SH %s\n.nf\n%s.fi\n", title, roff(usages))
	}
}

// relatedPages are those of the commands above and below.
func relatedPages(c *cobra.Command) []string {
	var pages []string
	add := func(c *cobra.Command) { pages = append(pages, fmt.Sprintf(".BR %s (1)", roff(pageName(c)))) }
	if c.HasParent() {
		add(c.Parent())
	}
	for _, sub := range c.Commands() {
		if !sub.Hidden && sub.Name() != "help" {
			add(sub)
		}
	}
	slices.Sort(pages)
	return pages
}
