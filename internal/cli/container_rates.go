// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"strconv"
	"strings"

	"github.com/spf13/pflag"
	"google.golang.org/protobuf/proto"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

// rateFlags are the limits of one network device, as text.
type rateFlags struct{ up, down, packetsUp, packetsDown string }

func (r *rateFlags) add(f *pflag.FlagSet) {
	f.StringVar(&r.up, "rate-up", "", "most `bits` a second that the container sends, such as 10mbit")
	f.StringVar(&r.down, "rate-down", "", "most `bits` a second that it receives, such as 1gbit")
	f.StringVar(&r.packetsUp, "packets-up", "", "most `packets` a second that it sends, such as 20k")
	f.StringVar(&r.packetsDown, "packets-down", "", "most `packets` a second that it receives")
}

// of gives the limit of a key of --network.
func (r *rateFlags) of(key string) *string {
	return map[string]*string{"rate-up": &r.up, "rate-down": &r.down, "packets-up": &r.packetsUp, "packets-down": &r.packetsDown}[key]
}

// read gives nil where nothing is limited.
func (r *rateFlags) read() (*v1.RateLimits, error) {
	l := &v1.RateLimits{}
	for _, x := range []struct {
		key  string
		to   *uint64
		unit string
	}{{"rate-up", &l.BitsUp, "bit"}, {"rate-down", &l.BitsDown, "bit"}, {"packets-up", &l.PacketsUp, ""}, {"packets-down", &l.PacketsDown, ""}} {
		text := *r.of(x.key)
		if text == "" {
			continue
		}
		var ok bool
		if *x.to, ok = parseRate(text, x.unit); !ok {
			return nil, usagef("write a number with k, m or g, such as 10m"+x.unit, "--%s %q is no rate", x.key, text)
		}
	}
	if proto.Equal(l, &v1.RateLimits{}) {
		return nil, nil
	}
	return l, nil
}

// minRate is the slowest that can be asked for, in bits a second: a byte.
const minRate = 8

// parseRate reads a number with k, m or g for thousands of it, and a unit that may be left out.
func parseRate(text, unit string) (uint64, bool) {
	number := strings.TrimSuffix(strings.ToLower(text), unit)
	factor, least := uint64(1), uint64(1)
	if unit != "" {
		least = minRate
	}
	for suffix, f := range map[string]uint64{"k": 1e3, "m": 1e6, "g": 1e9} {
		if n, ok := strings.CutSuffix(number, suffix); ok {
			number, factor = n, f
			break
		}
	}
	n, err := strconv.ParseUint(number, 10, 64)
	if err != nil || n > 1e15/factor || n*factor < least {
		return 0, false
	}
	return n * factor, true
}
