// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/micropod/micropod/internal/vmm"
)

// Spec says what a machine is made of. Zero fields take the daemon's defaults.
type Spec struct {
	ID   string // [a-z0-9-], at most 64 bytes; empty: chosen
	Name string // [a-zA-Z0-9_.-], unique among machines; may be empty

	VCPUs  int
	Memory int64 // bytes, a multiple of 1 MiB; MemoryFor picks one for a container

	Kernel string // path of the guest's kernel; empty: the daemon's
	Args   string // added to the kernel's command line

	Labels, Annotations map[string]string

	Engine string // empty or "auto": the daemon picks
	Nested bool   // the guest may run virtual machines

	Image        string // EROFS image for slot ImageSlot, read-only; empty: the slot is free
	ScratchBytes int64  // size of the ext4 disk in slot ScratchSlot

	Hostname string // empty: the name, else the id

	Network NetworkSpec

	DiskLimit RateLimit // of each drive that has none of its own
	Drives    []Drive   // the user's
	NICs      []NIC     // likewise, in place of networks

	// Log and Metrics are files of the user's for what the VMM says and counts; empty: in the machine's folder.
	Log, Metrics string
}

// The drive slots of every machine.
const (
	ImageSlot   = 0 // /dev/vda: the image's EROFS, read-only
	ScratchSlot = 1 // /dev/vdb: the machine's own ext4 disk
)

// Info is a machine as it is now. It is a copy; the maps must not be changed.
type Info struct {
	Spec // as in effect

	Joined *Joined // to networks, while it runs; nil: to none. Not to be changed.

	State       State
	Reason      string    // why Stopped, Error or Unknown, for people
	PID         int       // of the VMM; 0 when there is none
	Files       vmm.Files // of the VMM, while it runs
	ConsolePath string    // the guest's console output, of the last run; empty before the first

	CreatedAt, StartedAt, StoppedAt time.Time // StartedAt: agent identified

	SuspendedAt time.Time // while it is suspended or being woken; zero else

	Template string // that the last run was restored from; empty: it booted

	AgentVersion, KernelVersion string // as the agent told in the last run
}

// Bounds of a Spec. minMemory is what a stock kernel and the agent need to come up.
const (
	minMemory      = 128 << 20
	minScratch     = 16 << 20
	maxScratch     = 16 << 40 // ext4 with 4 KiB blocks
	maxArgs        = 1024     // bytes; the kernel takes 2048 in all (COMMAND_LINE_SIZE, arch/x86)
	maxHostname    = 64       // HOST_NAME_MAX
	maxLabelsBytes = 256 << 10
)

var (
	idForm   = regexp.MustCompile("^[a-z0-9][a-z0-9-]{0,63}$")
	nameForm = regexp.MustCompile("^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$")
	hostForm = regexp.MustCompile("^[a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z0-9])?$")
)

// complete fills in defaults and checks the whole. Its error is a *SpecError.
func (c *Config) complete(ctx context.Context, s Spec) (Spec, error) {
	s.ID = cmp.Or(s.ID, newID())
	s.VCPUs = cmp.Or(s.VCPUs, c.VCPUs)
	s.Memory = cmp.Or(s.Memory, c.Memory)
	s.ScratchBytes = cmp.Or(s.ScratchBytes, c.Scratch)
	s.Labels, s.Annotations = maps.Clone(s.Labels), maps.Clone(s.Annotations)
	if s.Engine == "" || s.Engine == "auto" {
		s.Engine = c.auto(ctx, s.Nested)
	}
	if _, none := c.Network.(noNetwork); !none && !s.Network.None && len(s.Network.Joins)+len(s.NICs) == 0 {
		s.Network.Joins = c.defaultJoins()
	}
	s.Drives, s.NICs = slices.Clone(s.Drives), slices.Clone(s.NICs)
	s.Network.Ports = slices.Clone(s.Network.Ports)
	for i := range s.Network.Ports {
		s.Network.Ports[i].Protocol = cmp.Or(s.Network.Ports[i].Protocol, "tcp")
	}
	for _, check := range []func(Spec) *SpecError{checkNetwork, checkNames, c.checkSizes, checkKernel, checkLabels, checkDevices, c.checkEngine} {
		if err := check(s); err != nil {
			return Spec{}, err
		}
	}
	return s, nil
}

func (c *Config) auto(ctx context.Context, nested bool) string {
	if c.Auto == nil {
		return c.Engines[0].Name()
	}
	return c.Auto(ctx, nested)
}

func checkNames(s Spec) *SpecError {
	switch {
	case !idForm.MatchString(s.ID):
		return &SpecError{"id", fmt.Sprintf("%q is not made of 1 to 64 of a-z, 0-9 and -", s.ID), ""}
	case s.Name != "" && !nameForm.MatchString(s.Name):
		return &SpecError{"name", fmt.Sprintf("%q is not made of 1 to 128 of a-z, A-Z, 0-9, _, . and -, a letter or digit first", s.Name), ""}
	case s.Hostname != "" && (len(s.Hostname) > maxHostname || !hostForm.MatchString(s.Hostname)):
		return &SpecError{"hostname", fmt.Sprintf("%q is no host name of at most %d letters, digits, - and .", s.Hostname, maxHostname), ""}
	}
	return nil
}

func (c *Config) checkSizes(s Spec) *SpecError {
	switch {
	case s.VCPUs < 1:
		return &SpecError{"vcpus", fmt.Sprintf("%d is less than 1", s.VCPUs), ""}
	case s.VCPUs > c.HostCPUs:
		return &SpecError{"vcpus", fmt.Sprintf("%d is more than this host's %d", s.VCPUs, c.HostCPUs), fmt.Sprintf("ask for at most %d", c.HostCPUs)}
	case s.Memory < minMemory:
		return &SpecError{"memory", fmt.Sprintf("%d MiB is too small for a guest to boot", s.Memory>>20), fmt.Sprintf("ask for at least %d MiB", minMemory>>20)}
	case s.Memory%(1<<20) != 0:
		return &SpecError{"memory", fmt.Sprintf("%d bytes is no multiple of 1 MiB", s.Memory), ""}
	case s.Memory > c.HostMemory:
		return &SpecError{"memory", fmt.Sprintf("%d MiB is more than this host's %d", s.Memory>>20, c.HostMemory>>20), "ask for less"}
	case s.ScratchBytes < minScratch || s.ScratchBytes > maxScratch:
		return &SpecError{"scratch size", fmt.Sprintf("%d bytes is not within 16 MiB and 16 TiB", s.ScratchBytes), ""}
	}
	return nil
}

func checkKernel(s Spec) *SpecError {
	if len(s.Args) > maxArgs {
		return &SpecError{"kernel arguments", fmt.Sprintf("%d bytes are more than %d", len(s.Args), maxArgs), ""}
	}
	unprintable := func(r rune) bool { return r < ' ' || r > '~' }
	if strings.ContainsFunc(s.Args, unprintable) {
		return &SpecError{"kernel arguments", "only printable ASCII is allowed", ""}
	}
	return nil
}

func checkLabels(s Spec) *SpecError {
	for what, of := range map[string]map[string]string{"labels": s.Labels, "annotations": s.Annotations} {
		total := 0
		for k, v := range of {
			if k == "" {
				return &SpecError{what, "a key is empty", ""}
			}
			total += len(k) + len(v)
		}
		if total > maxLabelsBytes {
			return &SpecError{what, fmt.Sprintf("%d bytes are more than %d", total, maxLabelsBytes), ""}
		}
	}
	return nil
}

func (c *Config) checkEngine(s Spec) *SpecError {
	var known []string
	for _, e := range c.Engines {
		if e.Name() == s.Engine {
			return nil
		}
		known = append(known, e.Name())
	}
	return &SpecError{"engine", fmt.Sprintf("%q is unknown", s.Engine), "use one of auto, " + strings.Join(known, ", ")}
}

// newID is 16 random hex digits: enough to be unique, short enough for socket paths.
func newID() string {
	b := make([]byte, 8)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return hex.EncodeToString(b)
}

// firstRung is the smallest machine of the ladder; each next one doubles it.
const firstRung = 256 << 20

// guestOverhead is what kernel, agent and initramfs take of a machine's memory
// beside its container.
const guestOverhead = 96 << 20

// MemoryFor is the rung of the ladder (256 MiB, 512 MiB, 1 GiB ...) for a machine
// whose container may use limit bytes.
func MemoryFor(limit int64) int64 {
	rung := int64(firstRung)
	for rung-guestOverhead < limit && rung < 1<<50 {
		rung *= 2
	}
	return rung
}
