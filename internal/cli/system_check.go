// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

// findingRow is what "system check --format json" prints of a finding.
type findingRow struct {
	Object, Problem, Mend string
	Repaired              bool
	Error                 string `json:",omitempty"`
}

func newSystemCheck(a *app) *cobra.Command {
	var format string
	var repair bool
	c := &cobra.Command{
		Use:   "check [flags]",
		Short: "Look for what crashes have left behind, and mend it",
		Long: `Look for what crashes have left behind, and mend it.

A start of the daemon finds and mends the same: folders and processes of machines that are no more, records that are
lost. The exit code is 1 when something is left to be mended.`,
		Example: `  micropod system check
  micropod system check --repair`,
		Args: exactArgs(0, "no words, only flags"),
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			answer, err := client.system.Check(c.Context(), connect.NewRequest(&v1.CheckRequest{Repair: repair}))
			if err != nil {
				return err
			}
			return printFindings(a, format, answer.Msg.Findings)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	c.Flags().BoolVar(&repair, "repair", false, "mend what can be mended")
	c.Flags().StringVar(&format, "format", "", "`json|TEMPLATE`")
	return c
}

func printFindings(a *app, format string, findings []*v1.Finding) error {
	rows := []findingRow{}
	left := 0
	for _, f := range findings {
		rows = append(rows, findingRow{Object: f.Object, Problem: f.Problem, Mend: f.Mend, Repaired: f.Repaired, Error: f.Error})
		if !f.Repaired {
			left++
		}
	}
	var err error
	switch format {
	case "json":
		err = printJSON(a.out, rows)
	case "":
		printFindingLines(a, rows)
	default:
		err = printTemplate(a.out, format, rows)
	}
	if err == nil && left > 0 {
		return exitCode(exitFailure)
	}
	return err
}

func printFindingLines(a *app, rows []findingRow) {
	for _, r := range rows {
		what := r.Mend
		switch {
		case r.Repaired:
			what = "mended"
		case r.Error != "":
			what = "cannot be mended: " + r.Error
		case what == "":
			what = "--repair mends it"
		}
		fmt.Fprintf(a.out, "%s: %s (%s)\n", printable(r.Object), printable(r.Problem), printable(what))
	}
	if len(rows) == 0 {
		fmt.Fprintln(a.out, "all is as it should be")
	}
}
