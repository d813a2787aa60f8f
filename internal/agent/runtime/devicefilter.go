// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"encoding/binary"
	"errors"
	"fmt"
	goruntime "runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A cgroup v2 has no files for devices; a small eBPF program attached to it answers
// for each open and mknod whether it may be (cgroup-v2.rst, "Device controller").

// errNoDeviceFilter: CONFIG_CGROUP_BPF is off.
var errNoDeviceFilter = errors.New("this kernel cannot filter the devices of a cgroup")

// insn is one eBPF instruction (struct bpf_insn in linux/bpf.h).
type insn struct {
	code     byte
	dst, src byte // registers
	off      int16
	imm      int32
}

// The instructions used, named by what they do.
const (
	opLoad        = 0x61 // dst = *(u32 *)(src + off)
	opMove        = 0xbf // dst = src
	opSet         = 0xb7 // dst = imm
	opAnd         = 0x57 // dst &= imm
	opShift       = 0x77 // dst >>= imm
	opSkipNot     = 0x55 // if dst != imm, skip off instructions
	opSkipIs      = 0x15 // if dst == imm, skip off instructions
	opSkipNotSame = 0x5d // if dst != src, skip off instructions
	opExit        = 0x95 // answer r0
)

// program is the filter: rules from last to first, the first that matches answers. It
// keeps the request (struct bpf_cgroup_dev_ctx at r1) in r2 (type), r3 (access), r4 (major) and r5 (minor).
func program(rules []deviceRule) []insn {
	code := []insn{
		{opLoad, 2, 1, 0, 0}, // access << 16 | type
		{opMove, 3, 2, 0, 0},
		{opAnd, 2, 0, 0, 0xffff},
		{opShift, 3, 0, 0, 16},
		{opLoad, 4, 1, 4, 0},
		{opLoad, 5, 1, 8, 0},
	}
	for i := len(rules) - 1; i >= 0; i-- {
		tests := rules[i].tests()
		code = append(code, tests...)
		code = append(code, insn{opSet, 0, 0, 0, verdict(rules[i].allow)}, insn{opExit, 0, 0, 0, 0})
		if len(tests) == 0 {
			return code // matches all; the kernel refuses code that cannot be reached
		}
	}
	return append(code, insn{opSet, 0, 0, 0, 0}, insn{opExit, 0, 0, 0, 0}) // nothing matched: no
}

func verdict(allow bool) int32 {
	if allow {
		return 1
	}
	return 0
}

// tests skip the rule's answer where it does not match. An allow rule matches a request
// for nothing beyond its accesses, a deny rule one for any of them.
func (r deviceRule) tests() []insn {
	var tests []insn
	if r.kind != 0 {
		tests = append(tests, insn{opSkipNot, 2, 0, 0, int32(r.kind)})
	}
	if r.access != accessAll {
		tests = append(tests, insn{opMove, 1, 3, 0, 0}, insn{opAnd, 1, 0, 0, int32(r.access)})
		if r.allow {
			tests = append(tests, insn{opSkipNotSame, 1, 3, 0, 0})
		} else {
			tests = append(tests, insn{opSkipIs, 1, 0, 0, 0})
		}
	}
	if r.major != anyNumber {
		tests = append(tests, insn{opSkipNot, 4, 0, 0, int32(r.major)})
	}
	if r.minor != anyNumber {
		tests = append(tests, insn{opSkipNot, 5, 0, 0, int32(r.minor)})
	}
	const answer = 2 // instructions between the last test and the next rule
	for i := range tests {
		if c := tests[i].code; c == opSkipNot || c == opSkipIs || c == opSkipNotSame {
			tests[i].off = int16(len(tests) - 1 - i + answer)
		}
	}
	return tests
}

func assemble(code []insn) []byte {
	b := make([]byte, 0, 8*len(code))
	for _, i := range code {
		b = append(b, i.code, i.src<<4|i.dst)
		b = binary.LittleEndian.AppendUint16(b, uint16(i.off))
		b = binary.LittleEndian.AppendUint32(b, uint32(i.imm))
	}
	return b
}

// filterDevices attaches the rules to the cgroup. Without rules every device is open.
func (g *cgroup) filterDevices(rules []deviceRule) error {
	if len(rules) == 0 {
		return nil
	}
	fd, err := loadProgram(assemble(program(rules)))
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	attach := struct{ target, program, kind, flags uint32 }{
		uint32(g.dir.Fd()), uint32(fd), unix.BPF_CGROUP_DEVICE, unix.BPF_F_ALLOW_MULTI,
	}
	_, err = bpf(unix.BPF_PROG_ATTACH, unsafe.Pointer(&attach), unsafe.Sizeof(attach))
	return err
}

// loadProgram gives code to the kernel, which checks it.
func loadProgram(code []byte) (int, error) {
	license := []byte("Apache-2.0\x00")
	load := struct { // union bpf_attr, BPF_PROG_LOAD, as far as used
		kind, count   uint32
		code, license uint64
	}{
		kind: unix.BPF_PROG_TYPE_CGROUP_DEVICE, count: uint32(len(code) / 8),
		code: uint64(uintptr(unsafe.Pointer(&code[0]))), license: uint64(uintptr(unsafe.Pointer(&license[0]))),
	}
	fd, err := bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(&load), unsafe.Sizeof(load))
	goruntime.KeepAlive(code)
	goruntime.KeepAlive(license)
	return fd, err
}

const maxBPFTries = 100

// bpf is bpf(2).
func bpf(command uintptr, attr unsafe.Pointer, size uintptr) (int, error) {
	var n uintptr
	errno := unix.EAGAIN
	// The kernel's check of a program ends with EAGAIN when a signal is pending (kernel/bpf/verifier.c), and Go
	// sends its threads signals.
	for try := 0; errno == unix.EAGAIN && try < maxBPFTries; try++ {
		n, _, errno = unix.Syscall(unix.SYS_BPF, command, uintptr(attr), size)
	}
	switch errno {
	case 0:
		return int(n), nil
	case unix.ENOSYS:
		return -1, fmt.Errorf("%w: %w", errNoDeviceFilter, errno)
	default:
		return -1, fmt.Errorf("filtering the container's devices: %w", errno)
	}
}
