// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"

	"github.com/spf13/pflag"
)

// refusedFlag is a flag of Docker's that micropod knows and cannot honour: better
// told than silently dropped.
type refusedFlag struct{ name, why string }

func (r *refusedFlag) String() string   { return "" }
func (r *refusedFlag) Type() string     { return "value" }
func (r *refusedFlag) Set(string) error { return fmt.Errorf("not supported: %s", r.why) }

// addRefused declares the flags that are refused, hidden from help.
func addRefused(f *pflag.FlagSet) {
	const (
		network = "machines have no network yet, only loopback"
		volumes = "host directories cannot be shared with a machine yet"
	)
	for _, r := range []struct{ name, short, why string }{
		{"publish", "p", network}, {"publish-all", "P", network}, {"network", "", network}, {"net", "", network},
		{"ip", "", network}, {"ip6", "", network}, {"mac-address", "", network}, {"network-alias", "", network}, {"link", "", network},
		{"expose", "", network},
		{"volume", "v", volumes}, {"mount", "", volumes}, {"volumes-from", "", volumes}, {"volume-driver", "", volumes},
		{"gpus", "", "a machine has no access to the host's GPUs"},
		{"runtime", "", "every container runs in a microVM; --engine picks which monitor runs it"},
		{"pid", "", "a machine cannot share the host's processes"},
		{"ipc", "", "a machine cannot share the host's IPC"},
		{"uts", "", "a machine cannot share the host's name"},
		{"userns", "", "the machine is the wall: user namespaces add nothing there"},
		{"cgroupns", "", "containers always have a cgroup namespace of their own"},
		{"isolation", "", "every container has a machine of its own"},
		{"log-driver", "", "logs are json-file"}, {"log-opt", "", "logs are json-file, of bounded size"},
	} {
		flag := f.VarPF(&refusedFlag{r.name, r.why}, r.name, r.short, "not supported: "+r.why)
		flag.Hidden = true
		if r.name == "publish-all" {
			flag.NoOptDefVal = "true"
		}
	}
}
