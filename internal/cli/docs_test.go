// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

var update = flag.Bool("update", false, "write docs/cli.md and the expected output of scripts again")

const docsPath = "../../docs/cli.md"

// wholeRoot is the command tree as users meet it, with the commands that cobra adds.
func wholeRoot() *cobra.Command {
	root := newRoot(&app{in: os.Stdin, out: os.Stdout, err: os.Stderr})
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	return root
}

func eachCommand(c *cobra.Command, do func(*cobra.Command)) {
	do(c)
	for _, sub := range c.Commands() {
		eachCommand(sub, do)
	}
}

// isCobras tells the commands that cobra writes: their texts are its own.
func isCobras(c *cobra.Command) bool {
	for ; c != nil; c = c.Parent() {
		if c.Name() == "completion" || c.Name() == "help" {
			return true
		}
	}
	return false
}

func TestEveryCommandIsExplained(t *testing.T) {
	t.Parallel()
	eachCommand(wholeRoot(), func(c *cobra.Command) {
		path := c.CommandPath()
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: the short text is %q, want one without a full stop", path, c.Short)
		}
		if c.HasParent() && !c.Parent().HasParent() && c.GroupID == "" {
			t.Errorf("%s belongs to no group of the help page", path)
		}
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" {
				t.Errorf("%s --%s has no usage", path, f.Name)
			}
		})
		if isCobras(c) {
			return
		}
		if c.Args == nil {
			t.Errorf("%s says nothing of its arguments", path)
		}
		if c.RunE == nil {
			t.Errorf("%s does nothing", path)
		}
		for line := range strings.Lines(c.Example) {
			if !strings.HasPrefix(line, "  ") || !strings.Contains(line, "micropod ") {
				t.Errorf("%s: the example %q is not indented or shows no command", path, line)
			}
		}
		if c.Example == "" {
			t.Errorf("%s has no example", path)
		}
	})
}

// TestEveryNameIsOnes: no two commands or aliases side by side may have one name.
func TestEveryNameIsOnes(t *testing.T) {
	t.Parallel()
	eachCommand(wholeRoot(), func(parent *cobra.Command) {
		seen := map[string]string{}
		for _, c := range parent.Commands() {
			for _, name := range append([]string{c.Name()}, c.Aliases...) {
				if other, taken := seen[name]; taken {
					t.Errorf("%s %s is both %s and %s", parent.CommandPath(), name, other, c.Name())
				}
				seen[name] = c.Name()
			}
		}
	})
}

// TestExamplesParse: the flags that examples show are there.
func TestExamplesParse(t *testing.T) {
	t.Parallel()
	eachCommand(wholeRoot(), func(c *cobra.Command) {
		if isCobras(c) {
			return
		}
		for line := range strings.Lines(c.Example) {
			_, words, _ := strings.Cut(line, "micropod ")
			if err := parseExample(strings.Fields(words)); err != nil {
				t.Errorf("%s: example %q: %v", c.CommandPath(), strings.TrimSpace(line), err)
			}
		}
	})
}

// parseExample finds the verb and parses flags as far as words without quotes go.
func parseExample(words []string) error {
	for i, w := range words {
		if strings.ContainsAny(w, "'$|") {
			words = words[:i]
			break
		}
	}
	if len(words) > 0 && strings.HasPrefix(words[len(words)-1], "-") {
		words = words[:len(words)-1] // its value was quoted
	}
	c, rest, err := newRoot(&app{in: os.Stdin, out: os.Stdout, err: os.Stderr}).Find(words)
	if err != nil {
		return err
	}
	return c.ParseFlags(rest)
}

// TestDocs keeps docs/cli.md as the commands say: go test ./internal/cli -run TestDocs -update
func TestDocs(t *testing.T) {
	t.Parallel()
	want := commandDocs(wholeRoot())
	if *update {
		if err := os.WriteFile(docsPath, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	have, err := os.ReadFile(docsPath)
	if err != nil {
		t.Fatal(err)
	}
	if string(have) != want {
		t.Errorf("docs/cli.md is not what the commands say: run go test ./internal/cli -run TestDocs -update")
	}
}

const docsHead = `# The command line

<!-- Made from the commands by: go test ./internal/cli -run TestDocs -update -->

Data goes to standard output; progress, notes and errors go to standard error. Wherever a
container, an image or a machine is named, a unique prefix of its id does as well. Failures
are a sentence and a hint; with ` + "`--error-format json` or `--format json`" + ` they are one line of JSON with
` + "`code`, `message`, `cause` and `remediation`" + ` ([errors.md](errors.md) lists the codes).

The daemon is started when none listens, except where MICROPOD_HOST (or ` + "`--host`" + `) points at
another's socket.

## Exit codes

| code | of | means |
|---|---|---|
`

func commandDocs(root *cobra.Command) string {
	var b strings.Builder
	b.WriteString(docsHead)
	for _, e := range exitCodes {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", e.code, e.of, e.means)
	}
	b.WriteString("\n## Global flags\n\n```\n" + root.PersistentFlags().FlagUsages() + "```\n")
	for _, g := range root.Groups() {
		fmt.Fprintf(&b, "\n## %s\n", strings.TrimSuffix(g.Title, ":"))
		for _, c := range root.Commands() {
			if c.GroupID == g.ID && !c.Hidden {
				eachCommand(c, func(c *cobra.Command) { documentCommand(&b, c) })
			}
		}
	}
	return b.String()
}

func documentCommand(b *strings.Builder, c *cobra.Command) {
	fmt.Fprintf(b, "\n### %s\n\n", c.CommandPath())
	if isCobras(c) { // its long text is for terminals
		fmt.Fprintf(b, "%s.\n", strings.TrimSuffix(c.Short, "."))
		return
	}
	long := c.Long
	if long == "" {
		long = c.Short + "."
	}
	fmt.Fprintf(b, "%s\n\n```\n%s\n```\n", long, c.UseLine())
	if len(c.Aliases) > 0 {
		fmt.Fprintf(b, "\nAlso: `%s`\n", strings.Join(c.Aliases, "`, `"))
	}
	if c.Example != "" {
		fmt.Fprintf(b, "\n```sh\n%s\n```\n", unindent(c.Example))
	}
	if flags := c.LocalFlags().FlagUsages(); flags != "" {
		fmt.Fprintf(b, "\n```\n%s```\n", flags)
	}
}

func unindent(s string) string {
	return strings.ReplaceAll(strings.TrimPrefix(s, "  "), "\n  ", "\n")
}
