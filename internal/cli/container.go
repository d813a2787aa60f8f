// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import "github.com/spf13/cobra"

// newContainer holds the verbs of containers a second time, as docker has them.
func newContainer(a *app) *cobra.Command {
	list := newPs(a)
	list.Use, list.Aliases = "ls [flags]", []string{"list", "ps"}
	inspect := newInspect(a)
	inspect.Flags().Lookup("type").Hidden = true
	_ = inspect.Flags().Set("type", "container")
	return group("container", "Manage containers", `  micropod container ls -a
  micropod container inspect web`,
		newRun(a), newCreate(a), newStart(a), newStop(a), newRestart(a), newUpdate(a), newKill(a), newRm(a),
		newExec(a), newAttach(a), newWait(a), list, newLogs(a), inspect, newCp(a), newDiff(a), newExport(a),
		newRename(a), newStats(a), newTop(a), newContainerPrune(a),
	)
}
