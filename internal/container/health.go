// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package container

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/micropod/micropod/internal/image"
)

// Health says how to find out whether what runs in a container works. Zero fields take the image's values, then
// Docker's.
type Health struct {
	// Test is NONE, or CMD and its words, or CMD-SHELL and a line for /bin/sh -c. Empty in effect: no checks.
	Test []string

	Interval      time.Duration // between two checks; 0: 30 s
	Timeout       time.Duration // after which a check has failed; 0: 30 s
	StartPeriod   time.Duration // from the start, in which failures do not count; 0: none
	StartInterval time.Duration // between two checks in that period; 0: 5 s
	Retries       int           // failures in a row that make it unhealthy; 0: 3
}

// HealthStatus is what the checks say of a container.
type HealthStatus string

// The statuses, with Docker's names. Empty: it is not checked.
const (
	HealthStarting HealthStatus = "starting"
	Healthy        HealthStatus = "healthy"
	Unhealthy      HealthStatus = "unhealthy"
)

// HealthState is how a container does.
type HealthState struct {
	Status        HealthStatus
	FailingStreak int     // failures in a row
	Log           []Check // the last ones, the oldest first
}

// Check is one that was made.
type Check struct {
	Start, End time.Time
	ExitCode   int // 0: well; -1: it could not be started or took too long
	Output     string
}

// Bounds of checks. keptChecks and maxCheckOutput are Docker's.
const (
	keptChecks     = 5
	maxCheckOutput = 4096 // bytes
	minHealthTime  = time.Millisecond
	maxHealthTime  = 24 * time.Hour
	maxRetries     = 1 << 16
)

const (
	testNone  = "NONE"
	testCmd   = "CMD"
	testShell = "CMD-SHELL"
)

// over merges what a user asks with what the image says.
func (h Health) over(img *image.Health) Health {
	if img != nil && len(h.Test) == 0 {
		h.Test = img.Test
	}
	if len(h.Test) == 0 || h.Test[0] == testNone {
		return Health{Test: slices.Clip(h.Test[:min(1, len(h.Test))])}
	}
	if img == nil {
		img = new(image.Health)
	}
	for _, f := range []struct {
		to           *time.Duration
		image, given time.Duration
	}{
		{&h.Interval, img.Interval, 30 * time.Second}, {&h.Timeout, img.Timeout, 30 * time.Second},
		{&h.StartPeriod, img.StartPeriod, 0}, {&h.StartInterval, img.StartInterval, 5 * time.Second},
	} {
		if *f.to == 0 {
			*f.to = f.image
		}
		if *f.to == 0 {
			*f.to = f.given
		}
	}
	if h.Retries == 0 {
		h.Retries = img.Retries
	}
	if h.Retries == 0 {
		h.Retries = 3
	}
	return h
}

// check tells what is wrong with the merged configuration; an image may say anything.
func (h Health) check() error {
	if !h.on() {
		return nil
	}
	switch {
	case h.Test[0] != testCmd && h.Test[0] != testShell:
		return &InvalidError{Field: "--health-cmd", Value: h.Test[0][:min(len(h.Test[0]), 64)], Reason: "a health check is CMD, CMD-SHELL or NONE"}
	case len(h.Test) < 2 || h.Test[0] == testShell && len(h.Test) != 2 || h.Test[1] == "":
		return &InvalidError{Field: "--health-cmd", Value: h.Test[0], Reason: "no command is named"}
	case slices.ContainsFunc(h.Test, func(s string) bool { return strings.ContainsRune(s, 0) }):
		return &InvalidError{Field: "--health-cmd", Reason: "a command cannot hold NUL"}
	case h.Retries < 0 || h.Retries > maxRetries:
		return &InvalidError{Field: "--health-retries", Value: fmt.Sprint(h.Retries), Reason: fmt.Sprintf("must be between 0 and %d", maxRetries)}
	}
	for flag, d := range map[string]time.Duration{"--health-interval": h.Interval, "--health-timeout": h.Timeout, "--health-start-interval": h.StartInterval} {
		if d < minHealthTime || d > maxHealthTime {
			return &InvalidError{Field: flag, Value: d.String(), Reason: "must be between 1 ms and 24 hours"}
		}
	}
	if h.StartPeriod < 0 || h.StartPeriod > maxHealthTime {
		return &InvalidError{Field: "--health-start-period", Value: h.StartPeriod.String(), Reason: "must be between 0 and 24 hours"}
	}
	return nil
}

// on tells whether there is anything to check.
func (h Health) on() bool { return len(h.Test) > 0 && h.Test[0] != testNone }

// command is what is executed.
func (h Health) command() []string {
	if h.Test[0] == testShell {
		return []string{"/bin/sh", "-c", h.Test[1]}
	}
	return h.Test[1:]
}

// wait is the time until the next check, now after the start.
func (h Health) wait(status HealthStatus, up time.Duration) time.Duration {
	if status == HealthStarting && up < h.StartPeriod {
		return h.StartInterval
	}
	return h.Interval
}

// after is the state after one more check, up after the start.
func (s HealthState) after(h Health, c Check, up time.Duration) HealthState {
	log := append(slices.Clone(s.Log), c) // readers hold the old one
	s.Log = log[max(0, len(log)-keptChecks):]
	switch {
	case c.ExitCode == 0:
		s.Status, s.FailingStreak = Healthy, 0
	case s.Status == HealthStarting && up < h.StartPeriod:
		// it may take its time
	default:
		if s.FailingStreak++; s.FailingStreak >= h.Retries {
			s.Status = Unhealthy
		}
	}
	return s
}
