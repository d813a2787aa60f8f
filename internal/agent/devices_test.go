// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	agentv1 "github.com/micropod/micropod/api/agent/v1"
)

func specWithDevices(annotation string) *specs.Spec {
	return &specs.Spec{Linux: &specs.Linux{}, Annotations: map[string]string{agentv1.AnnotationDevices: annotation}}
}

func TestGiveDevicesRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ annotation, want string }{
		"no JSON":       {`[`, "list of devices"},
		"missing":       {`[{"source":"/dev/none","path":"/dev/none","permissions":"r"}]`, "no such device"},
		"outside /dev":  {`[{"source":"/etc","path":"/etc","permissions":"r"}]`, "below /dev"},
		"out by dotdot": {`[{"source":"/dev/../etc/passwd","path":"/x","permissions":"r"}]`, "below /dev"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := giveDevices(specWithDevices(c.annotation)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}

func TestGiveOneDevice(t *testing.T) {
	t.Parallel()
	spec := specWithDevices(`[{"source":"/dev/null","path":"/dev/nothing","permissions":"rw"}]`)
	if err := giveDevices(spec); err != nil {
		t.Fatal(err)
	}
	if len(spec.Linux.Devices) != 1 {
		t.Fatalf("devices: %+v, want one", spec.Linux.Devices)
	}
	d, rule := spec.Linux.Devices[0], spec.Linux.Resources.Devices[0]
	if d.Path != "/dev/nothing" || d.Type != "c" || d.Major != 1 || d.Minor != 3 {
		t.Errorf("device %+v, want /dev/nothing as c 1:3", d)
	}
	if !rule.Allow || rule.Access != "rw" || *rule.Major != 1 || *rule.Minor != 3 {
		t.Errorf("rule %+v, want rw of 1:3", rule)
	}
}

// TestGiveAllDevices: a privileged container gets what the guest has, save what is each container's own.
func TestGiveAllDevices(t *testing.T) {
	t.Parallel()
	spec := specWithDevices(`[{"source":"/dev","path":"/dev","permissions":"rwm"}]`)
	if err := giveDevices(spec); err != nil {
		t.Fatal(err)
	}
	for _, d := range spec.Linux.Devices {
		for _, own := range []string{"/dev/null", "/dev/tty", "/dev/ptmx", "/dev/pts/", "/dev/vport0p1"} {
			if d.Path == own || strings.HasSuffix(own, "/") && strings.HasPrefix(d.Path, own) {
				t.Errorf("%s is given although it is each container's own", d.Path)
			}
		}
	}
}
