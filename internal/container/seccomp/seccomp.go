// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Package seccomp compiles Docker's default seccomp profile, or one of a user's
// in the same JSON format, to the BPF program that a guest's kernel runs. Guests
// need no libseccomp: the daemon compiles, the agent installs the bytes.
//
// The way: profile (JSON) -> resolve (rules that hold for these capabilities
// and this kernel) -> policy (for each architecture, what each number comes to)
// -> program (binary search over the numbers) -> bytes.
//
// Meaning follows libseccomp as runc drives it: a rule without conditions wins
// over those with conditions; several conditions on one argument are
// alternatives, on different arguments they must all hold; an architecture that the
// profile does not name kills; a system call newer than the profile gets ENOSYS, so
// that programs fall back.
//
// Functions are pure and may be called concurrently. internal/container/ocispec is the caller.
package seccomp

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"

	"golang.org/x/net/bpf"
)

// maxInstructions is the kernel's bound on a filter (BPF_MAXINSNS).
const maxInstructions = 4096

// Compile returns the filter for a profile as standard base64 of an array of struct
// sock_filter (little-endian), or "" when the profile filters nothing. profile is
// JSON; empty means Docker's default. caps is the container's bounding set, kernel the guest's version such as
// "6.1" (empty: 6.1). Warnings name rules that have no effect.
// The last filters made are kept; warnings must not be changed.
func Compile(profile string, caps []string, kernel string) (filter string, warnings []string, err error) {
	k := key(profile, caps, kernel)
	if r, ok := recall(k); ok {
		return r.filter, r.warnings, nil
	}
	filter, warnings, err = compile(profile, caps, kernel)
	if err == nil {
		remember(k, result{filter, warnings})
	}
	return filter, warnings, err
}

func compile(profile string, caps []string, kernel string) (filter string, warnings []string, err error) {
	rules, err := resolve(profile, caps, kernel)
	if err != nil || rules == nil {
		return "", nil, err
	}
	p, warnings, err := newPolicy(rules)
	if err != nil {
		return "", nil, err
	}
	raw, err := bpf.Assemble(p.program())
	if err != nil {
		return "", nil, fmt.Errorf("assembling the filter: %w", err)
	}
	if len(raw) > maxInstructions {
		return "", nil, fmt.Errorf("the profile makes a filter of %d instructions, the kernel takes at most %d", len(raw), maxInstructions)
	}
	if profile == "" {
		warnings = nil // the default profile names calls of architectures that no guest has
	}
	return base64.StdEncoding.EncodeToString(encode(raw)), warnings, nil
}

// encode lays instructions out as struct sock_filter (linux/filter.h).
func encode(program []bpf.RawInstruction) []byte {
	b := make([]byte, 0, 8*len(program))
	for _, i := range program {
		b = binary.LittleEndian.AppendUint16(b, i.Op)
		b = append(b, i.Jt, i.Jf)
		b = binary.LittleEndian.AppendUint32(b, i.K)
	}
	return b
}
