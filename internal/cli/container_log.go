// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/spf13/pflag"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

// logFlags say what becomes of a container's output.
type logFlags struct {
	driver  string
	options []string
}

func (o *logFlags) addFlags(f *pflag.FlagSet) {
	f.StringVar(&o.driver, "log-driver", "", "`json-file|none`: whether output is kept for logs (default json-file)")
	f.StringArrayVar(&o.options, "log-opt", nil, "bound of the log: `max-size=10m` of a file, max-file=3 of them")
}

func (o *logFlags) read(c *v1.ContainerConfig) error {
	if o.driver == "" && len(o.options) == 0 {
		return nil
	}
	c.Log = &v1.LogConfig{Driver: o.driver}
	for _, opt := range o.options {
		name, value, _ := strings.Cut(opt, "=")
		switch name {
		case "max-size":
			n, err := units.FromHumanSize(value)
			if value == "-1" {
				n, err = -1, nil
			}
			if err != nil || n == 0 || n < -1 {
				return usagef("write it like --log-opt max-size=10m", "--log-opt %q is no size", opt)
			}
			c.Log.MaxBytes = n
		case "max-file":
			n, err := strconv.ParseUint(value, 10, 31)
			if err != nil || n == 0 {
				return usagef("write it like --log-opt max-file=3", "--log-opt %q is no number of files", opt)
			}
			c.Log.MaxFiles = uint32(n)
		default:
			return usagef("the options are max-size= and max-file=", "--log-opt %q is not supported", opt)
		}
	}
	return nil
}

// logView is inspect's HostConfig.LogConfig.
type logView struct {
	Type   string
	Config map[string]string
}

func logConfigView(l *v1.LogConfig) logView {
	v := logView{Type: l.GetDriver(), Config: map[string]string{}}
	if n := l.GetMaxBytes(); n != 0 {
		v.Config["max-size"] = strconv.FormatInt(n, 10)
	}
	if n := l.GetMaxFiles(); n != 0 {
		v.Config["max-file"] = strconv.Itoa(int(n))
	}
	return v
}
