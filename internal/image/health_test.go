// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package image

import (
	"fmt"
	"testing"
	"time"
)

func TestParseHealth(t *testing.T) {
	t.Parallel()
	for config, want := range map[string]*Health{
		`{}`:                                    nil,
		`{"config":{}}`:                         nil,
		`{"config":{"Healthcheck":{}}}`:         nil,
		`{"config":{"Healthcheck":"often"}}`:    nil,
		`{"config":{"Healthcheck":{"Test":7}}}`: nil,
		`{"config":{"Healthcheck":{"Test":["CMD-SHELL","curl -f localhost"],"Interval":5000000000,"Timeout":3000000000,"StartPeriod":1,"StartInterval":2,"Retries":4}}}`: {
			Test: []string{"CMD-SHELL", "curl -f localhost"}, Interval: 5 * time.Second, Timeout: 3 * time.Second, StartPeriod: 1, StartInterval: 2, Retries: 4,
		},
		`{"config":{"Healthcheck":{"Test":["NONE"]}}}`: {Test: []string{"NONE"}},
	} {
		if got := parseHealth([]byte(config)); fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
			t.Errorf("%s: got %+v, want %+v", config, got, want)
		}
	}
}
