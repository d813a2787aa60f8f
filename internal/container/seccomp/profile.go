// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"encoding/json"
	"fmt"
	"runtime"
	"slices"

	docker "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

const (
	// maxProfileBytes bounds a user's profile; Docker's default takes 17 KiB.
	maxProfileBytes = 256 << 10
	// oldestKernel is what guests run at least.
	oldestKernel = "6.1"
)

// resolve picks the rules of a profile that hold for these capabilities, this
// architecture and the guest's kernel (the library's own function asks the host's). nil means that the profile filters nothing.
func resolve(profile string, caps []string, kernel string) (*specs.LinuxSeccomp, error) {
	from, err := parseProfile(profile)
	if err != nil {
		return nil, err
	}
	if from.DefaultAction == "" && len(from.Syscalls) == 0 {
		return nil, nil
	}
	version, err := parseKernel(kernel)
	if err != nil {
		return nil, err
	}
	to := from.LinuxSeccomp
	to.Architectures = slices.Clone(from.Architectures)
	for _, a := range from.ArchMap {
		if a.Arch == native().name {
			to.Architectures = append(append(to.Architectures, a.Arch), a.SubArches...)
		}
	}
	to.Syscalls = nil
	for _, call := range from.Syscalls {
		if call == nil || !holds(call, caps, version) {
			continue
		}
		rule := call.LinuxSyscall
		if old := oldName(call); old != "" {
			rule.Names = []string{old}
		}
		to.Syscalls = append(to.Syscalls, rule)
	}
	return &to, nil
}

func parseProfile(profile string) (*docker.Seccomp, error) {
	if profile == "" {
		return docker.DefaultProfile(), nil
	}
	if len(profile) > maxProfileBytes {
		return nil, fmt.Errorf("the profile has %d bytes, at most %d are possible", len(profile), maxProfileBytes)
	}
	var p docker.Seccomp
	if err := json.Unmarshal([]byte(profile), &p); err != nil {
		return nil, fmt.Errorf("reading the profile: %w", err)
	}
	if len(p.Architectures) > 0 && len(p.ArchMap) > 0 {
		return nil, fmt.Errorf("the profile has both architectures and archMap; use one of them")
	}
	for _, call := range p.Syscalls {
		if call == nil {
			continue
		}
		if old := oldName(call); old != "" && len(call.Names) > 0 {
			return nil, fmt.Errorf("the rule for %q has both name and names; use one of them", old)
		}
	}
	return &p, nil
}

// oldName is a rule's only name in profiles written before Docker 1.13.
func oldName(call *docker.Syscall) string {
	return call.Name //lint:ignore SA1019 Docker still reads it, and so users still have it
}

// goArchInProfiles is how profiles write the architecture in includes and excludes.
var goArchInProfiles = map[string]string{"amd64": "amd64", "arm64": "arm64"}

// holds tells whether a rule applies: not excluded by any, and included by all of its filters.
func holds(call *docker.Syscall, caps []string, kernel docker.KernelVersion) bool {
	arch := goArchInProfiles[runtime.GOARCH]
	if no := call.Excludes; no != nil {
		hasCap := slices.ContainsFunc(no.Caps, func(c string) bool { return slices.Contains(caps, c) })
		if hasCap || slices.Contains(no.Arches, arch) || no.MinKernel != nil && atLeast(kernel, *no.MinKernel) {
			return false
		}
	}
	if yes := call.Includes; yes != nil {
		lacksCap := slices.ContainsFunc(yes.Caps, func(c string) bool { return !slices.Contains(caps, c) })
		otherArch := len(yes.Arches) > 0 && !slices.Contains(yes.Arches, arch)
		if lacksCap || otherArch || yes.MinKernel != nil && !atLeast(kernel, *yes.MinKernel) {
			return false
		}
	}
	return true
}

func parseKernel(version string) (v docker.KernelVersion, err error) {
	if version == "" {
		version = oldestKernel
	}
	if _, err := fmt.Sscanf(version, "%d.%d", &v.Kernel, &v.Major); err != nil {
		return v, fmt.Errorf("reading the guest's kernel version %q: %w", version, err)
	}
	return v, nil
}

func atLeast(have, want docker.KernelVersion) bool {
	return have.Kernel > want.Kernel || have.Kernel == want.Kernel && have.Major >= want.Major
}
