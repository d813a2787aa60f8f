// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"strconv"

	"github.com/spf13/pflag"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

// diskRefill is in how many milliseconds the buckets of --disk-bps and --disk-iops fill up: their sizes are those of a second.
const diskRefill = 1000

// diskFlags bound what flows through each of a machine's disks.
type diskFlags struct {
	bps, iops string
	limiters  *v1.RateLimiters // of both, once they are checked
}

func (o *diskFlags) addFlags(f *pflag.FlagSet) {
	f.StringVar(&o.bps, "disk-bps", "", "bytes a second through each disk of the machine, such as 50m; 0: no limit (`size`)")
	f.StringVar(&o.iops, "disk-iops", "", "`number` of operations a second on each disk of the machine; 0: no limit")
}

// check reads the flags. One that is not given leaves its bucket out.
func (o *diskFlags) check(*v1.ContainerConfig) error {
	if o.bps == "" && o.iops == "" {
		return nil
	}
	disk := &v1.RateLimiter{}
	if o.bps != "" {
		n, err := parseSize("--disk-bps", o.bps)
		if err != nil {
			return err
		}
		disk.Bandwidth = perSecond(uint64(n))
	}
	if o.iops != "" {
		n, err := strconv.ParseUint(o.iops, 10, 63)
		if err != nil {
			return usagef("write a number like 1000", "--disk-iops %q is no number of operations", o.iops)
		}
		disk.Ops = perSecond(n)
	}
	o.limiters = &v1.RateLimiters{Disk: disk}
	return nil
}

func perSecond(n uint64) *v1.TokenBucket {
	if n == 0 {
		return &v1.TokenBucket{}
	}
	return &v1.TokenBucket{Size: n, RefillTime: diskRefill}
}
