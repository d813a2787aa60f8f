// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"fmt"
	"runtime"
	"strings"
	"text/tabwriter"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	v1 "github.com/micropod/micropod/api/micropod/v1"
	"github.com/micropod/micropod/internal/version"
)

func newSystem(a *app) *cobra.Command {
	return group("system", "Look at the daemon and its host", `  micropod system info
  micropod system events`,
		newInfo(a), newDiskUsage(a), newSystemPrune(a), newEvents(a), newDoctor(a), newSystemCheck(a))
}

type versionView struct{ Client, Server *versionPart }

type versionPart struct{ Version, Commit, GoVersion, ApiVersion, Platform string }

func newVersion(a *app) *cobra.Command {
	var format string
	c := &cobra.Command{
		Use:   "version [flags]",
		Short: "Show the versions of this command and of the daemon",
		Example: `  micropod version
  micropod version --format '{{.Client.Version}}'`,
		Args: exactArgs(0, "no words, only flags"),
		RunE: func(c *cobra.Command, _ []string) error {
			v := versionView{Client: &versionPart{version.Version, version.Revision(), runtime.Version(), version.API, version.Platform()}}
			client, err := a.connect(c.Context())
			if err == nil {
				var answer *connect.Response[v1.VersionResponse]
				if answer, err = client.system.Version(c.Context(), connect.NewRequest(&v1.VersionRequest{})); err == nil {
					m := answer.Msg
					v.Server = &versionPart{m.Version, m.Commit, m.GoVersion, m.ApiVersion, m.Platform}
				}
			}
			if printed := printVersion(a, format, v); printed != nil {
				return printed
			}
			return err // the client's part is told also without a daemon
		},
	}
	c.Flags().StringVarP(&format, "format", "f", "", "`json|TEMPLATE`")
	return c
}

func printVersion(a *app, format string, v versionView) error {
	switch format {
	case "json":
		return printJSON(a.out, v)
	case "":
		w := tabwriter.NewWriter(a.out, 0, 1, 2, ' ', 0)
		for _, part := range []struct {
			title string
			*versionPart
		}{{"Client", v.Client}, {"Server", v.Server}} {
			if part.versionPart == nil {
				continue
			}
			fmt.Fprintf(w, "%s:\n Version:\t%s\n API version:\t%s\n Go version:\t%s\n Commit:\t%s\n OS/Arch:\t%s\n",
				part.title, part.Version, part.ApiVersion, part.GoVersion, cmp.Or(part.Commit, "unknown"), part.Platform)
		}
		return w.Flush()
	}
	return printTemplate(a.out, format, []versionView{v})
}

// infoView is what info shows; JSON has the same names.
type infoView struct {
	ServerVersion, DataDir, RunDir, Engine, EngineVersion, Accelerator string
	KernelPath, KernelVersion, HostKernel, CgroupVersion               string
	NCPU                                                               int32
	MemTotal                                                           int64
	Containers, ContainersRunning, ContainersStopped, Images, Machines int32
	DaemonPid, NGoroutines, NFd                                        int32
	StartedAt                                                          string
}

func newInfo(a *app) *cobra.Command {
	var format string
	c := &cobra.Command{
		Use:     "info [flags]",
		Short:   "Show what the daemon runs on, and with",
		Example: `  micropod info --format '{{.Engine}} {{.Accelerator}}'`,
		Args:    exactArgs(0, "no words, only flags"),
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			answer, err := client.system.Info(c.Context(), connect.NewRequest(&v1.InfoRequest{}))
			if err != nil {
				return err
			}
			return printInfo(a, format, newInfoView(answer.Msg))
		},
	}
	c.Flags().StringVarP(&format, "format", "f", "", "`json|TEMPLATE`")
	return c
}

func newInfoView(m *v1.InfoResponse) infoView {
	return infoView{
		ServerVersion: m.Version, DataDir: m.DataDir, RunDir: m.RunDir, Engine: m.Engine, EngineVersion: m.EngineVersion,
		Accelerator: m.Accelerator, KernelPath: m.KernelPath, KernelVersion: m.KernelVersion, HostKernel: m.HostKernel,
		CgroupVersion: m.CgroupVersion, NCPU: m.Cpus, MemTotal: m.MemoryBytes, Containers: m.Containers,
		ContainersRunning: m.ContainersRunning, ContainersStopped: m.Containers - m.ContainersRunning, Images: m.Images,
		Machines: m.Machines, DaemonPid: m.Pid, NGoroutines: m.Goroutines, NFd: m.FileDescriptors, StartedAt: instant(m.StartedAt),
	}
}

func printInfo(a *app, format string, v infoView) error {
	switch format {
	case "json":
		return printJSON(a.out, v)
	case "":
		w := tabwriter.NewWriter(a.out, 0, 1, 2, ' ', 0)
		fmt.Fprintf(w, "Containers:\t%d (%d running)\nImages:\t%d\nMachines:\t%d\n", v.Containers, v.ContainersRunning, v.Images, v.Machines)
		fmt.Fprintf(w, "Engine:\t%s %s (%s)\n", v.Engine, v.EngineVersion, v.Accelerator)
		fmt.Fprintf(w, "Guest kernel:\t%s (%s)\nHost kernel:\t%s\nCgroups:\t%s\n", v.KernelVersion, v.KernelPath, v.HostKernel, v.CgroupVersion)
		fmt.Fprintf(w, "CPUs:\t%d\nMemory:\t%s\n", v.NCPU, bytesSize(v.MemTotal))
		fmt.Fprintf(w, "Data:\t%s\nRun:\t%s\nServer version:\t%s\nDaemon:\tpid %d, since %s\n", v.DataDir, v.RunDir, v.ServerVersion, v.DaemonPid, v.StartedAt)
		return w.Flush()
	}
	return printTemplate(a.out, format, []infoView{v})
}

// checkRow is a line of doctor.
type checkRow struct{ Check, Status, Finding, Mend string }

func newDoctor(a *app) *cobra.Command {
	var format string
	c := &cobra.Command{
		Use:   "doctor [flags]",
		Short: "Check what this host has for running machines, with a mend for each lack",
		Long: `Check what this host has for running machines, with a mend for each lack.

The exit code is 1 when machines cannot run.`,
		Example: `  micropod doctor
  micropod doctor --format json`,
		Args: exactArgs(0, "no words, only flags"),
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			answer, err := client.system.Doctor(c.Context(), connect.NewRequest(&v1.DoctorRequest{}))
			if err != nil {
				return err
			}
			return printChecks(a, format, answer.Msg.Checks)
		},
	}
	c.Flags().StringVar(&format, "format", "", "`json|TEMPLATE`")
	return c
}

func printChecks(a *app, format string, checks []*v1.Check) error {
	var rows []checkRow
	failed := false
	for _, check := range checks {
		failed = failed || check.Status == v1.CheckStatus_CHECK_STATUS_FAILED
		rows = append(rows, checkRow{
			Check: check.Name, Status: strings.ToLower(strings.TrimPrefix(check.Status.String(), "CHECK_STATUS_")),
			Finding: check.Finding, Mend: check.Mend,
		})
	}
	var err error
	switch format {
	case "json":
		err = printJSON(a.out, nonNil(rows))
	case "":
		w := tabwriter.NewWriter(a.out, 0, 1, 2, ' ', 0)
		for _, r := range rows {
			finding, _, _ := strings.Cut(r.Finding, "\n") // JSON shows all lines
			fmt.Fprintf(w, "%s\t%s\t%s\n", r.Status, r.Check, printable(finding))
			if r.Mend != "" {
				fmt.Fprintf(w, "\t\tmend: %s\n", printable(r.Mend))
			}
		}
		err = w.Flush()
	default:
		err = printTemplate(a.out, format, rows)
	}
	if err == nil && failed {
		return exitCode(exitFailure)
	}
	return err
}
