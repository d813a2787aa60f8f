// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

// eventView is one event as JSON and templates show it. Names are Docker's; Actor holds what Docker's has.
type eventView struct {
	Time       string            `json:"time"`
	TimeNano   int64             `json:"timeNano"`
	Type       string            `json:"Type"`
	Action     string            `json:"Action"`
	ID         string            `json:"id"`
	Name       string            `json:"name"`
	Attributes map[string]string `json:"attributes,omitempty"`
	Actor      eventActor        `json:"Actor"`
}

type eventActor struct {
	ID         string
	Attributes map[string]string
}

// eventFilters are what events can be filtered by.
var eventFilters = []string{"type", "event", "container", "image", "machine", "label"}

type eventsOptions struct {
	format, since, until string
	filters              []string
}

func newEvents(a *app) *cobra.Command {
	o := &eventsOptions{}
	c := &cobra.Command{
		Use:   "events [flags]",
		Short: "Show what happens to containers, machines and images, as it happens",
		Long: `Show what happens to containers, machines and images, as it happens.

With --since those that the daemon still keeps (some 1,000) come first; with --until it ends there.`,
		Example: `  micropod events --filter type=container --filter event=die --format json
  micropod events --since 10m --until 0s`,
		Args: exactArgs(0, "no words, only flags"),
		RunE: func(c *cobra.Command, _ []string) error { return runEvents(c.Context(), a, o) },
	}
	c.Flags().StringVar(&o.format, "format", "", "`json|TEMPLATE`; json is a line for each event")
	c.Flags().StringVar(&o.since, "since", "", "begin with those kept since a `time`")
	c.Flags().StringVar(&o.until, "until", "", "end at a `time`")
	c.Flags().StringArrayVarP(&o.filters, "filter", "f", nil, "show only those with `"+strings.Join(eventFilters, "|")+"=value`")
	return c
}

func runEvents(ctx context.Context, a *app, o *eventsOptions) error {
	set, err := parseFilters(o.filters, eventFilters...)
	if err != nil {
		return err
	}
	now := time.Now()
	request := &v1.EventsRequest{}
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
	shown := eventFilter{set: set}
	if set.has("label") {
		if shown.labels, err = a.containerLabels(ctx); err != nil {
			return err
		}
	}
	stream, err := client.system.Events(ctx, connect.NewRequest(request))
	if err != nil {
		return err
	}
	defer stream.Close()
	for stream.Receive() {
		if e := stream.Msg(); shown.fits(ctx, a, e) {
			if err := printEvent(a, o.format, e); err != nil {
				return err
			}
		}
	}
	return stream.Err()
}

// containerLabels are those of all containers, by id.
func (a *app) containerLabels(ctx context.Context) (map[string]map[string]string, error) {
	answer, err := a.client.containers.List(ctx, connect.NewRequest(&v1.ListContainersRequest{All: true}))
	if err != nil {
		return nil, err
	}
	labels := map[string]map[string]string{}
	for _, c := range answer.Msg.Containers {
		labels[c.Id] = c.Config.GetLabels()
	}
	return labels, nil
}

// eventFilter picks events: the values of one key are alternatives, all labels must hold.
type eventFilter struct {
	set    filterSet
	labels map[string]map[string]string // of containers, by id; those made meanwhile are asked for
}

func (f *eventFilter) fits(ctx context.Context, a *app, e *v1.Event) bool {
	return f.set.any("type", func(v string) bool { return v == e.Type }) &&
		f.set.any("event", func(v string) bool { return v == e.Action }) &&
		f.named("container", e) && f.named("machine", e) && f.ofImage(e) && f.labelled(ctx, a, e)
}

func (f *eventFilter) named(kind string, e *v1.Event) bool {
	return f.set.any(kind, func(v string) bool { return e.Type == kind && (v == e.Name || strings.HasPrefix(e.Id, v)) })
}

// ofImage takes events of an image, and of containers that were made from it.
func (f *eventFilter) ofImage(e *v1.Event) bool {
	return f.named("image", e) || f.set.any("image", func(v string) bool {
		return familiar(e.Attributes["image"]) == familiar(v) && e.Type == "container"
	})
}

func (f *eventFilter) labelled(ctx context.Context, a *app, e *v1.Event) bool {
	if !f.set.has("label") {
		return true
	}
	if _, known := f.labels[e.Id]; !known && e.Type == "container" {
		f.labels[e.Id] = nil
		if c, err := a.container(ctx, e.Id); err == nil {
			f.labels[e.Id] = c.Config.GetLabels()
		}
	}
	return e.Type == "container" && f.set.labels(f.labels[e.Id])
}

func printEvent(a *app, format string, e *v1.Event) error {
	all := map[string]string{"name": e.Name}
	maps.Copy(all, e.Attributes)
	view := eventView{
		Time: instant(e.Time), TimeNano: e.Time.AsTime().UnixNano(), Type: e.Type, Action: e.Action, ID: e.Id, Name: e.Name,
		Attributes: e.Attributes, Actor: eventActor{e.Id, all},
	}
	switch format {
	case "json":
		return json.NewEncoder(a.out).Encode(view)
	case "":
		_, err := fmt.Fprintf(a.out, "%s %s %s %s (%s)\n", view.Time, view.Type, view.Action, view.ID, printable(strings.ReplaceAll(joinLabels(all), ",", ", ")))
		return err
	}
	return printTemplate(a.out, format, []eventView{view})
}
