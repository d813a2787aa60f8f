// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"time"

	"github.com/spf13/pflag"
	"google.golang.org/protobuf/types/known/durationpb"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

// healthFlags say how a container's health is checked; what is not given is the image's.
type healthFlags struct {
	command                                       string
	interval, timeout, startPeriod, startInterval time.Duration
	retries                                       uint32
	none                                          bool
}

func (o *healthFlags) addFlags(f *pflag.FlagSet) {
	f.StringVar(&o.command, "health-cmd", "", "`command` whose success means that the container is healthy, for its shell")
	f.DurationVar(&o.interval, "health-interval", 0, "`time` between two checks (default: the image's, else 30s)")
	f.DurationVar(&o.timeout, "health-timeout", 0, "`time` after which a check has failed (default: the image's, else 30s)")
	f.DurationVar(&o.startPeriod, "health-start-period", 0, "`time` from the start in which failures do not count (default: the image's)")
	f.DurationVar(&o.startInterval, "health-start-interval", 0, "`time` between two checks in that period (default: the image's, else 5s)")
	f.Uint32Var(&o.retries, "health-retries", 0, "`failures` in a row that make it unhealthy (default: the image's, else 3)")
	f.BoolVar(&o.none, "no-healthcheck", false, "do not check, whatever the image says")
}

func (o *healthFlags) read(c *v1.ContainerConfig) error {
	given := o.command != "" || o.interval != 0 || o.timeout != 0 || o.startPeriod != 0 || o.startInterval != 0 || o.retries != 0
	switch {
	case o.none && given:
		return usagef("leave out one of them", "--no-healthcheck and other --health flags exclude each other")
	case o.none:
		c.Health = &v1.HealthCheck{Test: []string{"NONE"}}
		return nil
	case !given:
		return nil
	}
	c.Health = &v1.HealthCheck{Retries: o.retries}
	if o.command != "" {
		c.Health.Test = []string{"CMD-SHELL", o.command}
	}
	for _, d := range []struct {
		from time.Duration
		to   **durationpb.Duration
	}{
		{o.interval, &c.Health.Interval}, {o.timeout, &c.Health.Timeout}, {o.startPeriod, &c.Health.StartPeriod}, {o.startInterval, &c.Health.StartInterval},
	} {
		if d.from != 0 {
			*d.to = durationpb.New(d.from)
		}
	}
	return nil
}

// healthWord is what ps adds to the status of a running container.
func healthWord(h *v1.Health) string {
	switch h.GetStatus() {
	case "":
		return ""
	case "starting":
		return " (health: starting)"
	default:
		return " (" + printable(h.GetStatus()) + ")"
	}
}

// healthName is what --filter health= compares.
func healthName(h *v1.Health) string { return firstOf(h.GetStatus(), "none") }

// healthView is inspect's State.Health.
type healthView struct {
	Status        string
	FailingStreak uint32
	Log           []healthResultView
}

type healthResultView struct {
	Start, End string
	ExitCode   int32
	Output     string
}

func healthState(h *v1.Health) *healthView {
	if h == nil {
		return nil
	}
	v := &healthView{Status: h.Status, FailingStreak: h.FailingStreak, Log: []healthResultView{}}
	for _, r := range h.Log {
		v.Log = append(v.Log, healthResultView{Start: instant(r.Start), End: instant(r.End), ExitCode: r.ExitCode, Output: r.Output})
	}
	return v
}

// healthConfig is inspect's Config.Healthcheck; times are nanoseconds, as Docker's.
type healthConfig struct {
	Test                                          []string
	Interval, Timeout, StartPeriod, StartInterval time.Duration `json:",omitempty"`
	Retries                                       uint32        `json:",omitempty"`
}

func healthCheckView(h *v1.HealthCheck) *healthConfig {
	if len(h.GetTest()) == 0 {
		return nil
	}
	return &healthConfig{
		Test: h.Test, Interval: h.Interval.AsDuration(), Timeout: h.Timeout.AsDuration(),
		StartPeriod: h.StartPeriod.AsDuration(), StartInterval: h.StartInterval.AsDuration(), Retries: h.Retries,
	}
}
