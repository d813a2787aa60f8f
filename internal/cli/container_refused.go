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

// refuse declares flags as refused, hidden from help.
func refuse(f *pflag.FlagSet, why string, names ...string) {
	for _, name := range names {
		f.VarPF(&refusedFlag{name, why}, name, "", "not supported: "+why).Hidden = true
	}
}

// refuseCgroup declares the limits of docker's that a machine has not.
func refuseCgroup(f *pflag.FlagSet) {
	const disk = "the machine's disk is the container's alone; --storage-opt size= bounds it, its speed cannot be limited yet"
	refuse(f, disk, "blkio-weight", "blkio-weight-device", "device-read-bps", "device-read-iops", "device-write-bps", "device-write-iops")
	refuse(f, "cgroup v2, which machines have, knows no real-time shares; use --cpu-shares or --cpus", "cpu-rt-period", "cpu-rt-runtime")
	refuse(f, "a machine has one memory node", "cpuset-mems")
	refuse(f, "kernels have no such limit any more; --memory counts kernel memory too", "kernel-memory")
	refuse(f, "cgroup v2, which machines have, has no such setting", "memory-swappiness", "oom-kill-disable")
	f.Lookup("oom-kill-disable").NoOptDefVal = "true"
}

// refuseForeign declares flags of docker's that make no sense in a machine.
func refuseForeign(f *pflag.FlagSet) {
	refuse(f, "the container's cgroup is in its own machine", "cgroup-parent")
	refuse(f, "name the device: --device /dev/NAME:/dev/NAME:rwm", "device-cgroup-rule")
	refuse(f, "there is no docker socket to give to a container", "use-api-socket")
	refuse(f, "it is for Windows containers", "cpu-count", "cpu-percent", "io-maxbandwidth", "io-maxiops")
	refuse(f, "images are not signed that way any more; pull by digest to be sure of one", "disable-content-trust")
	for _, name := range []string{"use-api-socket", "disable-content-trust"} {
		f.Lookup(name).NoOptDefVal = "true"
	}
}

// addRefused declares the flags that are refused, hidden from help.
func addRefused(f *pflag.FlagSet) {
	const volumes = "host directories cannot be shared with a machine yet"
	for _, r := range []struct{ name, short, why string }{
		{"link", "", "containers of one network find each other by name; --network-alias gives one more"},
		{"volume", "v", volumes}, {"mount", "", volumes}, {"volumes-from", "", volumes}, {"volume-driver", "", volumes},
		{"gpus", "", "a machine has no access to the host's GPUs"},
		{"runtime", "", "every container runs in a microVM; --engine picks which monitor runs it"},
		{"pid", "", "a machine cannot share the host's processes"},
		{"ipc", "", "a machine cannot share the host's IPC"},
		{"uts", "", "a machine cannot share the host's name"},
		{"userns", "", "the machine is the wall: user namespaces add nothing there"},
		{"cgroupns", "", "containers always have a cgroup namespace of their own"},
		{"isolation", "", "every container has a machine of its own"},
	} {
		f.VarPF(&refusedFlag{r.name, r.why}, r.name, r.short, "not supported: "+r.why).Hidden = true
	}
	refuse(f, "an interface has the one link-local address that comes from its MAC address", "link-local-ip")
	refuse(f, "the flag is --network-alias", "net-alias")
	refuseCgroup(f)
	refuseForeign(f)
}
