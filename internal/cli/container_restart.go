// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

// restartView is how inspect shows a restart policy.
type restartView struct {
	Name              string
	MaximumRetryCount uint32
}

func addRestart(f *pflag.FlagSet, policy *string) {
	f.StringVar(policy, "restart", "no", "start the container again when it ended: `no|on-failure[:times]|always|unless-stopped`")
}

func (o *containerFlags) readRestart(c *v1.ContainerConfig) (err error) {
	c.Restart, err = parseRestart(o.restart)
	return err
}

// parseRestart reads what --restart takes; the daemon knows the policies.
func parseRestart(s string) (*v1.RestartPolicy, error) {
	name, times, given := strings.Cut(s, ":")
	p := &v1.RestartPolicy{Name: name}
	if !given {
		return p, nil
	}
	n, err := strconv.ParseUint(times, 10, 31)
	if err != nil {
		return nil, usagef("write it like --restart on-failure:5", "--restart %q: %q is no number of times", s, times)
	}
	p.MaxRetries = uint32(n)
	return p, nil
}
