// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"slices"
	"strings"
	"testing"
)

func TestCommandLine(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		boot          Boot
		want, without []string
	}{
		"emulated, one CPU": {
			Boot{TSCKHz: 2596143, VCPUs: 1, Emulated: true, Console: "ttyS0", Reboot: "t"},
			[]string{"quiet", "panic=-1", "tsc_early_khz=2596143", "noreplace-smp", "mitigations=off", "console=ttyS0", "reboot=t"}, nil,
		},
		"real CPUs": {
			Boot{TSCKHz: 1, VCPUs: 2, Reboot: "k", Extra: []string{"foo=1", "bar"}},
			[]string{"reboot=k", "foo=1", "bar"},
			[]string{"noreplace-smp", "mitigations=off", "console="},
		},
		"nothing known": {Boot{}, []string{"quiet"}, []string{"tsc_early_khz=0", "tsc_early_khz=", "reboot=", "console="}},
	} {
		args := strings.Fields(CommandLine(test.boot))
		for _, want := range test.want {
			if !slices.Contains(args, want) {
				t.Errorf("%s: %q lacks %q", name, args, want)
			}
		}
		for _, not := range test.without {
			if slices.Contains(args, not) {
				t.Errorf("%s: %q has %q", name, args, not)
			}
		}
	}
	if line := CommandLine(Boot{Extra: []string{"quiet=last"}}); !strings.HasSuffix(line, " quiet=last") {
		t.Errorf("%q does not end with the extra parameter, which should win", line)
	}
}
