// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

func newTop(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "top CONTAINER [PS OPTIONS]",
		Short: "List the processes of a running container",
		Long: `List the processes of a running container.

The image needs no ps: the machine's agent reads them. Of ps's options -e, -f, -ef, aux and -o COLUMN,... are
understood. Process ids are those that the container sees.

Columns: ` + strings.Join(topColumnNames(), ", "),
		Example: `  micropod top web
  micropod top web aux
  micropod top web -o pid,user,rss,args`,
		Args: needArgs(1, "container"),
		RunE: func(c *cobra.Command, args []string) error {
			return runTop(c.Context(), a, args[0], args[1:])
		},
		ValidArgsFunction: completeContainers(a, running),
	}
	c.Flags().SetInterspersed(false) // what follows the container is ps's
	return c
}

// process is a process and those it belongs to.
type process struct {
	*v1.ProcessInfo
	parent uint32 // as the container counts; 0: outside of it
	now    time.Time
}

// topColumn is a column as ps names and titles it.
type topColumn struct {
	names []string
	title string
	show  func(process) string
}

var topColumns = []topColumn{
	{[]string{"user", "euser", "uname"}, "USER", func(p process) string { return p.User }},
	{[]string{"uid", "euid"}, "UID", func(p process) string { return fmt.Sprint(p.Uid) }},
	{[]string{"pid"}, "PID", func(p process) string { return fmt.Sprint(p.ContainerPid) }},
	{[]string{"ppid"}, "PPID", func(p process) string { return fmt.Sprint(p.parent) }},
	{[]string{"c", "cp"}, "C", func(p process) string { return fmt.Sprintf("%.0f", p.share()) }},
	{[]string{"pcpu", "%cpu"}, "%CPU", func(p process) string { return fmt.Sprintf("%.1f", p.share()) }},
	{[]string{"stime", "start", "start_time"}, "STIME", func(p process) string { return p.begin() }},
	{[]string{"tty", "tt", "tname"}, "TTY", func(p process) string { return cmp.Or(p.Tty, "?") }},
	{[]string{"time", "cputime"}, "TIME", func(p process) string { return clock(time.Duration(p.CpuMicros) * time.Microsecond) }},
	{[]string{"etime"}, "ELAPSED", func(p process) string { return clock(p.now.Sub(p.StartedAt.AsTime())) }},
	{[]string{"vsz", "vsize"}, "VSZ", func(p process) string { return fmt.Sprint(p.VirtualBytes >> 10) }},
	{[]string{"rss", "rssize"}, "RSS", func(p process) string { return fmt.Sprint(p.ResidentBytes >> 10) }},
	{[]string{"stat", "s", "state"}, "STAT", func(p process) string { return p.State }},
	{[]string{"ni", "nice"}, "NI", func(p process) string { return fmt.Sprint(p.Nice) }},
	{[]string{"nlwp", "thcount"}, "NLWP", func(p process) string { return fmt.Sprint(p.Threads) }},
	{[]string{"comm", "ucmd"}, "COMMAND", func(p process) string { return p.Command }},
	{[]string{"cmd", "args", "command"}, "CMD", func(p process) string { return p.Args }},
}

func topColumnNames() []string {
	var names []string
	for _, c := range topColumns {
		names = append(names, c.names[0])
	}
	return names
}

// share is the CPU time that a process used of the time it has lived, in percent.
func (p process) share() float64 {
	lived := p.now.Sub(p.StartedAt.AsTime())
	if lived <= 0 {
		return 0
	}
	return float64(p.CpuMicros) / float64(lived.Microseconds()) * 100
}

// begin is when a process began, as ps -f shows it: the time today, else the day.
func (p process) begin() string {
	at := p.StartedAt.AsTime().Local()
	if at.YearDay() == p.now.YearDay() && at.Year() == p.now.Year() {
		return at.Format("15:04")
	}
	return at.Format("Jan02")
}

// clock is a time as ps shows it: [DD-]hh:mm:ss.
func clock(d time.Duration) string {
	s := max(0, int64(d/time.Second))
	text := fmt.Sprintf("%02d:%02d:%02d", s/3600%24, s/60%60, s%60)
	if days := s / 86400; days > 0 {
		text = fmt.Sprintf("%d-%s", days, text)
	}
	return text
}

// psColumns reads ps's options.
func psColumns(options []string) ([]topColumn, error) {
	names := "user,pid,ppid,c,stime,tty,time,cmd"
	for i := 0; i < len(options); i++ {
		switch o := options[i]; {
		case o == "-e", o == "-f", o == "-ef", o == "-fe", o == "-A", o == "-Af":
		case o == "aux", o == "-aux", o == "u", o == "ux":
			names = "user,pid,pcpu,vsz,rss,tty,stat,stime,time,cmd"
		case o == "-o" || o == "-eo" || o == "o" || o == "--format":
			if i++; i == len(options) {
				return nil, usagef("name columns, such as -o pid,args", "%s has no value", o)
			}
			names = options[i]
		case strings.HasPrefix(o, "-o"), strings.HasPrefix(o, "-eo"):
			_, names, _ = strings.Cut(o, "o")
		default:
			return nil, usagef("-ef, aux and -o COLUMN,... are understood; for all of ps: micropod exec CONTAINER ps ...", "ps option %q is not supported", o)
		}
	}
	var columns []topColumn
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(topColumns, func(c topColumn) bool { return slices.Contains(c.names, strings.ToLower(strings.TrimSpace(name))) })
		if i < 0 {
			return nil, usagef("columns are "+strings.Join(topColumnNames(), ", "), "ps column %q is not supported", name)
		}
		columns = append(columns, topColumns[i])
	}
	return columns, nil
}

func runTop(ctx context.Context, a *app, container string, options []string) error {
	columns, err := psColumns(options)
	if err != nil {
		return err
	}
	if len(options) == 0 || strings.Contains(options[0], "f") {
		columns[0].title = "UID" // as ps -f has it, with the user's name
	}
	client, err := a.connect(ctx)
	if err != nil {
		return err
	}
	answer, err := client.containers.Top(ctx, connect.NewRequest(&v1.TopRequest{Container: container}))
	if err != nil {
		return err
	}
	list := answer.Msg.Processes
	slices.SortFunc(list, func(x, y *v1.ProcessInfo) int { return cmp.Compare(x.ContainerPid, y.ContainerPid) })
	inside := map[uint32]uint32{}
	for _, p := range list {
		inside[p.Pid] = p.ContainerPid
	}
	w := tabwriter.NewWriter(a.out, 0, 1, 3, ' ', 0)
	for i := -1; i < len(list); i++ {
		var cells []string
		for _, c := range columns {
			text := c.title
			if i >= 0 {
				text = c.show(process{list[i], inside[list[i].Parent], time.Now()})
			}
			cells = append(cells, strings.ReplaceAll(printable(text), "\t", " "))
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	return w.Flush()
}
