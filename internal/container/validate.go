// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package container

import (
	"fmt"
	"regexp"
	"time"

	"github.com/micropod/micropod/internal/container/ocispec"
	"github.com/micropod/micropod/internal/machine"
)

var namePattern = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$`)

const (
	defaultStopWait = 10 * time.Second
	maxStopWait     = 24 * time.Hour
	maxLabelBytes   = 256 << 10
)

// complete checks what the runtime specification does not cover, and fills in defaults.
func (c Config) complete() (Config, error) {
	if c.Image == "" {
		return c, &InvalidError{Field: "image", Reason: "no image is named", Hint: "micropod run IMAGE [COMMAND]"}
	}
	if c.Name != "" {
		if err := checkName(c.Name); err != nil {
			return c, err
		}
	}
	switch c.Pull {
	case PullMissing, PullAlways, PullNever:
	case "":
		c.Pull = PullMissing
	default:
		return c, &InvalidError{Field: "--pull", Value: string(c.Pull), Reason: "is no policy", Hint: "missing, always or never"}
	}
	if c.StopWait < 0 || c.StopWait > maxStopWait {
		return c, &InvalidError{Field: "--stop-timeout", Value: c.StopWait.String(), Reason: "must be between 0 and 24 hours"}
	}
	if c.StopWait == 0 {
		c.StopWait = defaultStopWait
	}
	if c.Log.Driver == "" {
		c.Log.Driver = LogFiles
	}
	if err := c.Log.check(); err != nil {
		return c, err
	}
	if c.Restart.Policy == "" {
		c.Restart.Policy = RestartNo
	}
	if err := c.Restart.check(c.AutoRemove); err != nil {
		return c, err
	}
	if c.TTY && c.StdinOnce && !c.Stdin {
		c.StdinOnce = false
	}
	if err := c.Network.check(); err != nil {
		return c, err
	}
	return c, checkLabels(c.Labels)
}

func checkName(name string) error {
	if namePattern.MatchString(name) {
		return nil
	}
	return &InvalidError{Field: "--name", Value: name[:min(len(name), 128)],
		Reason: "letters, digits, _, . and - are possible, at most 128, a letter or digit first"}
}

func checkLabels(labels map[string]string) error {
	total := 0
	for key, value := range labels {
		if key == "" {
			return &InvalidError{Field: "--label", Value: "=" + value[:min(len(value), 64)], Reason: "the key is empty", Hint: "write KEY=VALUE"}
		}
		total += len(key) + len(value)
	}
	if total > maxLabelBytes {
		return &InvalidError{Field: "--label", Reason: fmt.Sprintf("%d bytes in all are more than %d", total, maxLabelBytes)}
	}
	return nil
}

// bundle makes the runtime specification from a record.
func (r *record) bundle(m machine.Info, rows, cols uint32) (*ocispec.Bundle, error) {
	return ocispec.Build(ocispec.Input{
		ID: r.ID, Image: r.Image, Config: r.Config.Config, Network: networkOf(m), Kernel: m.KernelVersion, Rows: rows, Cols: cols,
	})
}
