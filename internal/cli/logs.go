// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"strconv"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

type logsOptions struct {
	follow, timestamps, console bool
	tail, since, until          string
}

func newLogs(a *app) *cobra.Command {
	o := &logsOptions{}
	c := &cobra.Command{
		Use:   "logs [flags] CONTAINER",
		Short: "Show what a container wrote",
		Example: `  micropod logs -f --tail 20 web
  micropod logs --since 10m -t web
  micropod logs --console web`,
		Args:              exactArgs(1, "one container"),
		RunE:              func(c *cobra.Command, args []string) error { return runLogs(c.Context(), a, o, args[0]) },
		ValidArgsFunction: completeContainers(a, anyState),
	}
	f := c.Flags()
	f.BoolVarP(&o.follow, "follow", "f", false, "go on with what is written from now on")
	f.BoolVarP(&o.timestamps, "timestamps", "t", false, "begin each line with its time")
	f.StringVarP(&o.tail, "tail", "n", "all", "`number` of lines from the end")
	f.StringVar(&o.since, "since", "", "show what was written after a `time`: 10m, or 2026-01-02T15:04:05Z, or Unix seconds")
	f.StringVar(&o.until, "until", "", "show what was written before a `time`")
	refuse(f, "containers' logs hold no attributes", "details")
	f.Lookup("details").NoOptDefVal = "true"
	f.BoolVar(&o.console, "console", false, "show the console of the container's machine instead: its kernel's words")
	return c
}

func runLogs(ctx context.Context, a *app, o *logsOptions, name string) error {
	request := &v1.LogsRequest{Container: name, Follow: o.follow, Tail: -1, Stdout: true, Stderr: true}
	var err error
	if o.tail != "all" && o.tail != "" {
		if request.Tail, err = strconv.ParseInt(o.tail, 10, 64); err != nil {
			return usagef("write a number of lines, or all", "--tail %q is no number", o.tail)
		}
	}
	now := time.Now()
	if request.Since, err = parseTime("--since", o.since, now); err != nil {
		return err
	}
	if request.Until, err = parseTime("--until", o.until, now); err != nil {
		return err
	}
	client, err := a.connect(ctx)
	if err != nil {
		return err
	}
	if o.console {
		answer, err := client.machines.ConsoleLog(ctx, connect.NewRequest(&v1.ConsoleLogRequest{VmId: name}))
		if err != nil {
			return err
		}
		_, err = a.out.Write(answer.Msg.Data)
		return err
	}
	return (&logReader{app: a, request: request, timestamps: o.timestamps}).run(ctx)
}

// timeLayouts are the times that --since and --until take beside durations and Unix seconds.
var timeLayouts = []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02T15:04", "2006-01-02"}

// parseTime reads a moment: a duration before now, an RFC 3339 time (local without
// a zone), a date, or seconds since 1970.
func parseTime(flag, s string, now time.Time) (*timestamppb.Timestamp, error) {
	if s == "" {
		return nil, nil
	}
	if d, err := time.ParseDuration(s); err == nil {
		return timestamppb.New(now.Add(-d)), nil
	}
	if seconds, err := strconv.ParseFloat(s, 64); err == nil && seconds >= 0 && seconds < 1<<40 {
		whole := int64(seconds)
		return timestamppb.New(time.Unix(whole, int64((seconds-float64(whole))*1e9))), nil
	}
	for _, layout := range timeLayouts {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return timestamppb.New(t), nil
		}
	}
	return nil, usagef("write 10m, 2026-01-02T15:04:05Z or Unix seconds", "%s %q is no time", flag, s)
}
