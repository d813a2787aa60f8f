// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package image

import (
	"encoding/json"
	"time"
)

// Health is an image's HEALTHCHECK. OCI's image specification has no such field; Docker's configuration, which has
// the same form else, does (moby/docker-image-spec, specs-go/v1, HealthcheckConfig). Times are nanoseconds there too.
type Health struct {
	// Test is empty, or NONE, or CMD and its words, or CMD-SHELL and a line for /bin/sh.
	Test []string

	Interval, Timeout, StartPeriod, StartInterval time.Duration

	Retries int
}

// parseHealth reads the HEALTHCHECK of an image configuration, nil when there is none. One that does not fit is
// none, since nothing else of an image depends on it.
func parseHealth(config []byte) *Health {
	var c struct {
		Config struct{ Healthcheck *Health }
	}
	if err := json.Unmarshal(config, &c); err != nil || c.Config.Healthcheck == nil || len(c.Config.Healthcheck.Test) == 0 {
		return nil
	}
	return c.Config.Healthcheck
}
