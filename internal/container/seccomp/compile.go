// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"maps"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Offsets in struct seccomp_data (linux/seccomp.h), little-endian.
const (
	offsetNumber = 0
	offsetArch   = 4
	offsetArgs   = 16 // low word of argument 0; the high word follows
)

// program compiles the policy: the audit architecture picks the table, binary search the call.
func (p *policy) program() []bpf.Instruction {
	e := newEmitter()
	// A table for x32 shares x86_64's audit architecture, so tables are grouped by it.
	next := e.ret(unix.SECCOMP_RET_KILL_THREAD) // libseccomp's answer to an architecture without rules
	for _, audit := range p.audits() {
		entry := p.group(e, audit)
		next = e.branch(bpf.JumpEqual, audit, entry, next)
	}
	e.goTo(next)
	e.emit(bpf.LoadAbsolute{Off: offsetArch, Size: 4})
	return e.program()
}

// audits lists the audit architectures, the native one last: emitted last, it is tested first.
func (p *policy) audits() []uint32 {
	var audits []uint32
	for _, t := range slices.Backward(p.tables) {
		if !slices.Contains(audits, t.abi.audit) {
			audits = append(audits, t.abi.audit)
		}
	}
	if first := p.tables[0].abi.audit; audits[len(audits)-1] != first {
		audits = append(slices.DeleteFunc(audits, func(a uint32) bool { return a == first }), first)
	}
	return audits
}

// group emits the tables of one audit architecture.
func (p *policy) group(e *emitter, audit uint32) label {
	var plain, x32 label = -1, -1
	for _, t := range p.tables {
		switch {
		case t.abi.audit != audit:
		case t.abi.bit != 0:
			x32 = p.search(e, p.ranges(e, t))
		default:
			plain = p.search(e, p.ranges(e, t))
		}
	}
	if audit == findABI(specs.ArchX86_64).audit {
		if x32 < 0 {
			x32 = e.ret(unix.SECCOMP_RET_KILL_THREAD)
		}
		plain = e.branch(bpf.JumpGreaterOrEqual, x32Bit, x32, plain)
	}
	e.goTo(plain)
	return e.emit(bpf.LoadAbsolute{Off: offsetNumber, Size: 4})
}

// span is a run of numbers, from lowest to the next span's, with one outcome.
type span struct {
	lowest uint32
	block  label  // of a conditional call's code, or -1
	ret    uint32 // when block is -1
}

// ranges turns a table into spans that cover all numbers, and emits the code of conditional calls.
func (p *policy) ranges(e *emitter, t table) []span {
	spans := []span{}
	add := func(s span) {
		if last := len(spans) - 1; last >= 0 && s.block < 0 && spans[last].block < 0 && spans[last].ret == s.ret {
			return
		}
		spans = append(spans, s)
	}
	after := t.abi.bit // the first number not covered yet
	for _, n := range slices.Sorted(maps.Keys(t.calls)) {
		number := n | t.abi.bit
		if number > after {
			add(span{lowest: after, block: -1, ret: p.otherwise})
		}
		add(p.outcome(e, number, t.calls[n], t.abi.args32))
		after = number + 1
	}
	rest := t.newer
	if len(t.calls) == 0 {
		rest = p.otherwise
	}
	add(span{lowest: after, block: -1, ret: rest})
	return spans
}

// outcome is one call's span.
func (p *policy) outcome(e *emitter, number uint32, rules []rule, args32 bool) span {
	if len(rules[0].conditions) == 0 {
		return span{lowest: number, block: -1, ret: rules[0].ret}
	}
	no := e.ret(p.otherwise)
	for _, r := range slices.Backward(rules) {
		no = r.emit(e, no, args32)
	}
	return span{lowest: number, block: no}
}

// search emits a binary search of A among spans.
func (p *policy) search(e *emitter, spans []span) label {
	if len(spans) == 1 {
		if spans[0].block >= 0 {
			return spans[0].block
		}
		return e.ret(spans[0].ret)
	}
	mid := len(spans) / 2
	above := p.search(e, spans[mid:])
	below := p.search(e, spans[:mid])
	return e.branch(bpf.JumpGreaterOrEqual, spans[mid].lowest, above, below)
}
