// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"fmt"
	"runtime"
	"slices"

	"github.com/elastic/go-seccomp-bpf/arch"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// x32Bit marks the numbers of x32, which shares x86_64's audit architecture.
const x32Bit = 0x40000000

// abi is one system call interface of a kernel.
type abi struct {
	name    specs.Arch
	audit   uint32 // AUDIT_ARCH_*, seccomp_data.arch
	bit     uint32 // set in every number
	args32  bool   // arguments have 32 bits
	numbers map[string][]uint32
}

// abis are those that guests of amd64 and arm64 know.
var abis = []*abi{
	newABI(specs.ArchX86_64, arch.X86_64, false),
	newABI(specs.ArchX86, arch.I386, true),
	newABI(specs.ArchX32, arch.X32, false),
	newABI(specs.ArchAARCH64, arch.AARCH64, false),
	newABI(specs.ArchARM, arch.ARM, true),
}

// newABI indexes a table by name. x32 has two numbers for some names; a rule means both.
func newABI(name specs.Arch, info *arch.Info, args32 bool) *abi {
	a := &abi{name: name, audit: uint32(info.ID), bit: uint32(info.SeccompMask), args32: args32, numbers: map[string][]uint32{}}
	for n, call := range info.SyscallNumbers {
		a.numbers[call] = append(a.numbers[call], uint32(n))
	}
	return a
}

// native is the guest's own interface; it is filtered whether the profile names it or not.
func native() *abi {
	if runtime.GOARCH == "arm64" {
		return findABI(specs.ArchAARCH64)
	}
	return findABI(specs.ArchX86_64)
}

func findABI(name specs.Arch) *abi {
	at := slices.IndexFunc(abis, func(a *abi) bool { return a.name == name })
	if at < 0 {
		return nil
	}
	return abis[at]
}

// otherArches are in libseccomp's list, but no guest of ours has them: naming them is no error.
var otherArches = []specs.Arch{
	specs.ArchMIPS, specs.ArchMIPS64, specs.ArchMIPS64N32, specs.ArchMIPSEL, specs.ArchMIPSEL64, specs.ArchMIPSEL64N32,
	specs.ArchPPC, specs.ArchPPC64, specs.ArchPPC64LE, specs.ArchS390, specs.ArchS390X, specs.ArchPARISC, specs.ArchPARISC64,
	specs.ArchRISCV64, specs.ArchLOONGARCH64,
}

// abisOf picks the interfaces that a filter must know, the native one first.
func abisOf(names []specs.Arch) ([]*abi, error) {
	picked := []*abi{native()}
	for _, name := range names {
		a := findABI(name)
		if a == nil && !slices.Contains(otherArches, name) {
			return nil, fmt.Errorf("there is no architecture %q", name)
		}
		if a != nil && !slices.Contains(picked, a) {
			picked = append(picked, a)
		}
	}
	return picked, nil
}

// knownAnywhere tells whether any table has the name.
func knownAnywhere(call string) bool {
	return slices.ContainsFunc(abis, func(a *abi) bool { return len(a.numbers[call]) > 0 })
}
