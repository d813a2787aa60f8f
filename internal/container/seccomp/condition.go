// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
)

// emit writes code that returns r.ret when all conditions hold and else goes on at no.
func (r rule) emit(e *emitter, no label, args32 bool) label {
	yes := e.ret(r.ret)
	for _, c := range slices.Backward(r.conditions) {
		yes = emitCondition(e, c, yes, no, args32)
	}
	return yes
}

// emitCondition compares an argument of 64 bits in two words, the high one
// first. Where arguments have 32 bits the low word alone counts, as in libseccomp.
func emitCondition(e *emitter, c specs.LinuxSeccompArg, yes, no label, args32 bool) label {
	switch c.Op {
	case specs.OpNotEqual:
		return compare(e, c, equal, no, yes, args32)
	case specs.OpLessThan:
		return compare(e, c, atLeastValue, no, yes, args32)
	case specs.OpLessEqual:
		return compare(e, c, above, no, yes, args32)
	case specs.OpGreaterThan:
		return compare(e, c, above, yes, no, args32)
	case specs.OpGreaterEqual:
		return compare(e, c, atLeastValue, yes, no, args32)
	case specs.OpMaskedEqual:
		return compare(e, c, maskedEqual, yes, no, args32)
	default:
		return compare(e, c, equal, yes, no, args32)
	}
}

// relation is how one comparison of two words is done.
type relation struct {
	low    bpf.JumpTest // what must hold for the low words when the high ones are equal
	higher bool         // whether a greater high word settles it with yes
	masked bool
}

var (
	equal        = relation{low: bpf.JumpEqual}
	above        = relation{low: bpf.JumpGreaterThan, higher: true}
	atLeastValue = relation{low: bpf.JumpGreaterOrEqual, higher: true}
	maskedEqual  = relation{low: bpf.JumpEqual, masked: true}
)

func compare(e *emitter, c specs.LinuxSeccompArg, r relation, yes, no label, args32 bool) label {
	value, mask := c.Value, uint64(0)
	if r.masked {
		value, mask = c.ValueTwo, c.Value
	}
	start := e.branch(r.low, uint32(value), yes, no)
	start = loadWord(e, c.Index, 0, uint32(mask), r.masked, start)
	if args32 {
		return start
	}
	high := uint32(value >> 32)
	start = e.branch(bpf.JumpEqual, high, start, no)
	if r.higher {
		start = e.branch(bpf.JumpGreaterThan, high, yes, start)
	}
	return loadWord(e, c.Index, 4, uint32(mask>>32), r.masked, start)
}

// loadWord emits the load of a word of an argument, masked when asked, before next.
func loadWord(e *emitter, index uint, offset, mask uint32, masked bool, next label) label {
	e.goTo(next)
	if masked {
		e.emit(bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: mask})
	}
	return e.emit(bpf.LoadAbsolute{Off: offsetArgs + 8*uint32(index) + offset, Size: 4})
}
