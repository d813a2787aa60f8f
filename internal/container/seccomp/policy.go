// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"fmt"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// policy is what a profile means, by number.
type policy struct {
	otherwise uint32 // what a call without a rule returns (SECCOMP_RET_*)
	tables    []table
}

// table is one interface's part of a policy.
type table struct {
	abi   *abi
	calls map[uint32][]rule // by number without abi.bit; the first rule that holds counts
	// newer is what calls beyond the highest number of a rule return.
	newer uint32
}

// rule returns ret when all of its conditions hold.
type rule struct {
	ret        uint32
	conditions []specs.LinuxSeccompArg
}

// newPolicy reads resolved rules.
func newPolicy(s *specs.LinuxSeccomp) (*policy, []string, error) {
	otherwise, err := returnValue(s.DefaultAction, s.DefaultErrnoRet)
	if err != nil {
		return nil, nil, err
	}
	picked, err := abisOf(s.Architectures)
	if err != nil {
		return nil, nil, err
	}
	p := &policy{otherwise: otherwise}
	for _, a := range picked {
		p.tables = append(p.tables, table{abi: a, calls: map[uint32][]rule{}, newer: newerCalls(s.DefaultAction, otherwise)})
	}
	warnings := []string{}
	if s.ListenerPath != "" || len(s.Flags) > 0 {
		warnings = append(warnings, "the seccomp profile's flags and listener have no effect")
	}
	for _, call := range s.Syscalls {
		unknown, err := p.add(call)
		if err != nil {
			return nil, nil, err
		}
		for _, name := range unknown {
			warnings = append(warnings, fmt.Sprintf("the seccomp profile's rule for %q has no effect: there is no such system call", name))
		}
	}
	for i := range p.tables {
		p.tables[i].settle()
	}
	return p, warnings, nil
}

// newerCalls is runc's: a profile that refuses what it does not know
// answers ENOSYS for calls made after it was written.
func newerCalls(action specs.LinuxSeccompAction, otherwise uint32) uint32 {
	switch action {
	case specs.ActAllow, specs.ActLog, specs.ActTrace:
		return otherwise
	}
	return unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
}

// add enters one rule under all of its names, and returns those that no table knows.
func (p *policy) add(call specs.LinuxSyscall) (unknown []string, err error) {
	ret, err := returnValue(call.Action, call.ErrnoRet)
	if err != nil {
		return nil, err
	}
	alternatives, err := alternatives(call.Args)
	if err != nil {
		return nil, fmt.Errorf("the rule for %q: %w", call.Names, err)
	}
	for _, name := range call.Names {
		if !knownAnywhere(name) {
			unknown = append(unknown, name)
		}
		for i := range p.tables {
			for _, conditions := range alternatives {
				p.tables[i].add(name, rule{ret: ret, conditions: conditions})
			}
		}
	}
	return unknown, nil
}

// alternatives splits a rule's conditions as runc does: several on one argument are
// alternatives, each a rule of its own; otherwise all belong together.
func alternatives(args []specs.LinuxSeccompArg) ([][]specs.LinuxSeccompArg, error) {
	var seen [6]bool
	twice := false
	for _, a := range args {
		if a.Index > 5 {
			return nil, fmt.Errorf("there is no argument %d, they count from 0 to 5", a.Index)
		}
		if !slices.Contains(operators, a.Op) {
			return nil, fmt.Errorf("there is no operator %q", a.Op)
		}
		twice = twice || seen[a.Index]
		seen[a.Index] = true
	}
	if !twice {
		return [][]specs.LinuxSeccompArg{args}, nil
	}
	var each [][]specs.LinuxSeccompArg
	for _, a := range args {
		each = append(each, []specs.LinuxSeccompArg{a})
	}
	return each, nil
}

var operators = []specs.LinuxSeccompOperator{
	specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpEqualTo, specs.OpGreaterEqual, specs.OpGreaterThan, specs.OpMaskedEqual,
}

// add enters a rule for a call by name, and for the number that the call has inside a multiplexed one.
func (t *table) add(name string, r rule) {
	for _, n := range t.abi.numbers[name] {
		t.calls[n] = append(t.calls[n], r)
	}
	mux, selector, ok := multiplexed(t.abi.name, name)
	if !ok || len(r.conditions) > 0 {
		return // the arguments of a multiplexed call lie in memory, which no filter can read
	}
	r.conditions = []specs.LinuxSeccompArg{{Index: 0, Value: selector, Op: specs.OpEqualTo}}
	for _, n := range t.abi.numbers[mux] {
		t.calls[n] = append(t.calls[n], r)
	}
}

// settle puts an unconditional rule in place of all others for its call, as libseccomp does.
func (t *table) settle() {
	for n, rules := range t.calls {
		at := slices.IndexFunc(rules, func(r rule) bool { return len(r.conditions) == 0 })
		if at >= 0 {
			t.calls[n] = rules[at : at+1]
		}
	}
}

// returnValue is the filter's return value for an action.
func returnValue(action specs.LinuxSeccompAction, errno *uint) (uint32, error) {
	data := uint32(unix.EPERM)
	if errno != nil {
		if *errno > 4095 {
			return 0, fmt.Errorf("errno %d of action %s is above 4095", *errno, action)
		}
		data = uint32(*errno)
	}
	switch action {
	case specs.ActKill, specs.ActKillThread:
		return unix.SECCOMP_RET_KILL_THREAD, nil
	case specs.ActKillProcess:
		return unix.SECCOMP_RET_KILL_PROCESS, nil
	case specs.ActTrap:
		return unix.SECCOMP_RET_TRAP, nil
	case specs.ActErrno:
		return unix.SECCOMP_RET_ERRNO | data, nil
	case specs.ActTrace:
		return unix.SECCOMP_RET_TRACE | data, nil
	case specs.ActLog:
		return unix.SECCOMP_RET_LOG, nil
	case specs.ActAllow:
		return unix.SECCOMP_RET_ALLOW, nil
	case specs.ActNotify:
		return 0, fmt.Errorf("action %s needs a listener in the guest, which is not supported", action)
	}
	return 0, fmt.Errorf("there is no action %q", action)
}
