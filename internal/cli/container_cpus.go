// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"math"
	"strconv"
)

// defaultPeriod is the kernel's, in microseconds.
const defaultPeriod = 100_000

// nanoCPUs reads --cpus, or docker's older way to say the same.
func (o *containerFlags) nanoCPUs() (int64, error) {
	switch {
	case o.cpuPeriod == 0 && o.cpuQuota == 0:
		return parseCPUs(o.cpus)
	case o.cpus != "":
		return 0, usagef("leave out --cpu-period and --cpu-quota", "--cpus and --cpu-quota contradict each other")
	case o.cpuPeriod != 0 && (o.cpuPeriod < 1000 || o.cpuPeriod > 1_000_000):
		return 0, usagef("100000 is usual", "--cpu-period %d is not between 1000 and 1000000 microseconds", o.cpuPeriod)
	case o.cpuQuota < 1000 || o.cpuQuota > 1e12:
		return 0, usagef("give at least 1000 microseconds, such as --cpu-quota 50000", "--cpu-quota %d is no time a container can run in", o.cpuQuota)
	}
	return int64(float64(o.cpuQuota) / float64(cmp.Or(o.cpuPeriod, defaultPeriod)) * 1e9), nil
}

func parseCPUs(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseFloat(s, 64)
	if err != nil || n <= 0 || n > 1024 || math.IsNaN(n) {
		return 0, usagef("write a number like 2 or 0.5", "--cpus %q is no number of CPUs", s)
	}
	return int64(math.Round(n * 1e9)), nil
}
