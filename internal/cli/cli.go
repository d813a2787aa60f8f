// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Package cli is the micropod command: one file for each verb. It talks to
// the daemon through the public API alone and starts one where none listens.
//
// Main is the only entry. A verb is a constructor newX, which builds the cobra
// command, an xOptions with its flags, and a runX that does the work. Data
// goes to standard output; progress, notes and errors go to standard error.
package cli

import (
	"context"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/micropod/micropod/internal/config"
	"github.com/micropod/micropod/internal/version"
)

// app is what every verb shares: where it reads and writes, and how it
// finds the daemon. One command line makes one app.
type app struct {
	in, out, err *os.File
	config       config.Options
	client       *client // made by connect, once
	errorFormat  string  // of failures: "text", "json", or "" for that of --format
	trace        *trace  // nil without --trace
}

// Main runs the command line args (without the program's name) and returns
// the code to exit with: see docs/cli.md, "Exit codes".
func Main(ctx context.Context, args []string) int {
	a := &app{in: os.Stdin, out: os.Stdout, err: os.Stderr}
	root := newRoot(a)
	root.SetArgs(args)
	command, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	return a.fail(command, err)
}

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "micropod",
		Short: "Run OCI containers, each in a microVM of its own",
		Long: `micropod runs OCI containers, each in a microVM of its own: the commands of docker,
the isolation of a virtual machine.

The daemon, micropodd, is started when it does not run yet.`,
		Example: `  micropod run --rm -it debian bash
  micropod run -d --name web nginx
  micropod ps
  micropod logs -f web`,
		Version:                    version.Version,
		SilenceErrors:              true,
		SilenceUsage:               true,
		SuggestionsMinimumDistance: 2,
		Args:                       unknownCommand,
		RunE: func(c *cobra.Command, _ []string) error {
			return c.Help()
		},
	}
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.SetVersionTemplate("micropod version {{.Version}}\n")
	root.SetFlagErrorFunc(usageFailure)
	root.CompletionOptions.HiddenDefaultCmd = false
	root.SetHelpCommandGroupID("machines")
	root.SetCompletionCommandGroupID("machines")
	a.config.AddFlags(root.PersistentFlags())
	root.PersistentFlags().Var(&choice{&a.errorFormat, []string{"text", "json"}}, "error-format", "show failures as `text|json` (default text; json with --format json)")
	addVerbs(root, a)
	return root
}

// addVerbs hangs every command into its group of the help page.
func addVerbs(root *cobra.Command, a *app) {
	for _, g := range []struct {
		id, title string
		verbs     []*cobra.Command
	}{
		{"run", "Containers:", []*cobra.Command{
			newRun(a), newCreate(a), newStart(a), newStop(a), newRestart(a), newUpdate(a), newKill(a), newPause(a), newUnpause(a), newClone(a), newRm(a),
			newExec(a), newAttach(a), newWait(a), newPs(a), newLogs(a), newInspect(a), newCp(a),
			newDiff(a), newExport(a), newRename(a), newStats(a), newTop(a), newPort(a),
		}},
		{"images", "Images:", []*cobra.Command{
			newPull(a), newImages(a), newImport("load", a), newSave(a), newTag(a), newHistory(a), newRmi(a), newLogin(a), newLogout(a), newImage(a),
		}},
		{"machines", "Machines and host:", []*cobra.Command{
			newVM(a), newNetwork(a), newMMDS(a), newSnapshot(a), newTemplate(a), newContainer(a), newSystem(a), newInfo(a), newEvents(a), newDoctor(a), newVersion(a),
		}},
	} {
		root.AddGroup(&cobra.Group{ID: g.id, Title: g.title})
		for _, v := range g.verbs {
			v.GroupID = g.id
			root.AddCommand(v)
		}
	}
}

// unknownCommand refuses words that are no command, with the nearest ones.
func unknownCommand(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return unknownVerb(c, args[0])
}

func unknownVerb(c *cobra.Command, word string) error {
	hint := "'" + c.CommandPath() + " --help' lists the commands"
	if near := c.SuggestionsFor(word); len(near) > 0 {
		hint = "did you mean " + strings.Join(near, " or ") + "?"
	}
	return &usageError{message: "unknown command " + quote(word) + " for " + quote(c.CommandPath()), hint: hint}
}

// group is a command that only holds others, such as "micropod image".
func group(use, short, example string, verbs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use: use, Short: short, Example: example, SuggestionsMinimumDistance: 2,
		Args: unknownCommand,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(verbs...)
	return c
}
