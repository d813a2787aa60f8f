// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"slices"

	"golang.org/x/net/bpf"
)

// maxSkip is how far a conditional jump reaches, in instructions.
const maxSkip = 255

// label is an instruction's place, counted from the end of the program.
type label int

// emitter builds a program from its end to its beginning. BPF jumps only
// forwards, so every target is known when a jump to it is made.
type emitter struct {
	reversed []bpf.Instruction
	returns  map[uint32]label // the latest return of each value
}

func newEmitter() *emitter { return &emitter{returns: map[uint32]label{}} }

// program is what was emitted, in order of execution.
func (e *emitter) program() []bpf.Instruction {
	p := slices.Clone(e.reversed)
	slices.Reverse(p)
	return p
}

// emit puts an instruction before all others.
func (e *emitter) emit(i bpf.Instruction) label {
	e.reversed = append(e.reversed, i)
	return label(len(e.reversed) - 1)
}

// skip is the distance from the instruction to be emitted next to target.
func (e *emitter) skip(target label) int { return len(e.reversed) - 1 - int(target) }

// ret returns the place of an instruction that returns value, near enough for a jump from the code emitted next.
func (e *emitter) ret(value uint32) label {
	if at, ok := e.returns[value]; ok && e.skip(at) < maxSkip/2 {
		return at
	}
	at := e.emit(bpf.RetConstant{Val: value})
	e.returns[value] = at
	return at
}

// near returns a place that a conditional jump emitted next, or after one more trampoline, can reach.
func (e *emitter) near(target label) label {
	if e.skip(target) < maxSkip {
		return target
	}
	return e.emit(bpf.Jump{Skip: uint32(e.skip(target))})
}

// branch emits a comparison of A with value that goes on at yes or no.
func (e *emitter) branch(test bpf.JumpTest, value uint32, yes, no label) label {
	yes = e.near(yes)
	no = e.near(no)
	return e.emit(bpf.JumpIf{Cond: test, Val: value, SkipTrue: uint8(e.skip(yes)), SkipFalse: uint8(e.skip(no))})
}

// goTo makes sure that what is emitted next is followed by target.
func (e *emitter) goTo(target label) {
	if skip := e.skip(target); skip > 0 {
		e.emit(bpf.Jump{Skip: uint32(skip)})
	}
}
