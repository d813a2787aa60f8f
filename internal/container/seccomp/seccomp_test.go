// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	docker "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// call is what the kernel shows a filter: struct seccomp_data.
type call struct {
	arch   uint32
	number uint32
	args   [6]uint64
}

// packet lays a call out for bpf.VM, which loads words big-endian where the kernel loads them as they are.
func (c call) packet() []byte {
	b := make([]byte, 64)
	binary.BigEndian.PutUint32(b[offsetNumber:], c.number)
	binary.BigEndian.PutUint32(b[offsetArch:], c.arch)
	for i, a := range c.args {
		binary.BigEndian.PutUint32(b[offsetArgs+8*i:], uint32(a))
		binary.BigEndian.PutUint32(b[offsetArgs+8*i+4:], uint32(a>>32))
	}
	return b
}

// program compiles and decodes, as the agent does.
func program(t testing.TB, profile string, caps []string) []bpf.Instruction {
	t.Helper()
	text, _, err := Compile(profile, caps, "")
	if err != nil {
		t.Fatalf("compiling: %v", err)
	}
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(raw)%8 != 0 {
		t.Fatalf("the filter is no base64 of instructions: %v, %d bytes", err, len(raw))
	}
	var code []bpf.RawInstruction
	for ; len(raw) > 0; raw = raw[8:] {
		code = append(code, bpf.RawInstruction{
			Op: binary.LittleEndian.Uint16(raw), Jt: raw[2], Jf: raw[3], K: binary.LittleEndian.Uint32(raw[4:]),
		})
	}
	all, ok := bpf.Disassemble(code)
	if !ok {
		t.Fatal("the filter has instructions that make no sense")
	}
	return all
}

func machineOf(t testing.TB, profile string, caps []string) *bpf.VM {
	t.Helper()
	vm, err := bpf.NewVM(program(t, profile, caps))
	if err != nil {
		t.Fatalf("the filter is not valid: %v", err)
	}
	return vm
}

func run(t testing.TB, vm *bpf.VM, c call) uint32 {
	t.Helper()
	// bpf.VM says how many bytes to keep of a packet: the return value.
	out, err := vm.Run(c.packet())
	if err != nil {
		t.Fatalf("running the filter on %+v: %v", c, err)
	}
	return uint32(out)
}

// meaning is the slow, obvious judge: it reads the resolved rules anew for each call.
func meaning(s *specs.LinuxSeccomp, c call) uint32 {
	otherwise, _ := returnValue(s.DefaultAction, s.DefaultErrnoRet)
	a := abiOf(c)
	if a == nil || a != native() && !slices.Contains(s.Architectures, a.name) {
		return unix.SECCOMP_RET_KILL_THREAD
	}
	highest, any := uint32(0), false
	var always, conditional []specs.LinuxSyscall
	for _, rule := range s.Syscalls {
		for _, name := range rule.Names {
			for _, n := range a.numbers[name] {
				highest, any = max(highest, n), true
				if n == c.number&^a.bit && len(rule.Args) == 0 {
					always = append(always, rule)
				} else if n == c.number&^a.bit {
					conditional = append(conditional, rule)
				}
			}
			if mux, selector, ok := multiplexed(a.name, name); ok && len(rule.Args) == 0 {
				n := a.numbers[mux][0]
				highest, any = max(highest, n), true
				if n == c.number {
					second := rule
					second.Args = []specs.LinuxSeccompArg{{Index: 0, Value: selector, Op: specs.OpEqualTo}}
					conditional = append(conditional, second)
				}
			}
		}
	}
	if any && c.number&^a.bit > highest {
		return newerCalls(s.DefaultAction, otherwise)
	}
	for _, rule := range append(always, conditional...) {
		if argsHold(rule.Args, c, a.args32) {
			ret, _ := returnValue(rule.Action, rule.ErrnoRet)
			return ret
		}
	}
	return otherwise
}

func abiOf(c call) *abi {
	for _, a := range abis {
		if a.audit == c.arch && (a.bit != 0) == (c.number&x32Bit != 0 && c.arch == uint32(unix.AUDIT_ARCH_X86_64)) {
			return a
		}
	}
	return nil
}

func argsHold(args []specs.LinuxSeccompArg, c call, args32 bool) bool {
	count := map[uint]int{}
	for _, a := range args {
		count[a.Index]++
	}
	either := false
	for _, n := range count {
		either = either || n > 1
	}
	held := 0
	for _, a := range args {
		have, want, mask := c.args[a.Index], a.Value, a.Value
		if a.Op == specs.OpMaskedEqual {
			have, want = have&mask, a.ValueTwo
		}
		if args32 {
			have, want = uint64(uint32(have)), uint64(uint32(want))
		}
		if map[specs.LinuxSeccompOperator]bool{
			specs.OpNotEqual: have != want, specs.OpLessThan: have < want, specs.OpLessEqual: have <= want,
			specs.OpEqualTo: have == want, specs.OpGreaterEqual: have >= want, specs.OpGreaterThan: have > want,
			specs.OpMaskedEqual: have == want,
		}[a.Op] {
			held++
		}
	}
	return held == len(args) || either && held > 0
}

var defaultCaps = []string{"CAP_CHOWN", "CAP_SYS_CHROOT", "CAP_NET_RAW"}

// calls are all numbers of all interfaces, some beyond, with arguments that touch the rules' values.
func calls(s *specs.LinuxSeccomp) []call {
	values := []uint64{0, 1, 2, 1 << 32, 0xffffffff, 1<<64 - 1, 0x7e020000, 0x7e020000 << 32}
	for _, r := range s.Syscalls {
		for _, a := range r.Args {
			values = append(values, a.Value, a.Value-1, a.Value+1, a.Value|1<<32, a.ValueTwo, a.ValueTwo+1)
		}
	}
	rng := rand.New(rand.NewPCG(1, 2))
	var all []call
	for _, arch := range []uint32{unix.AUDIT_ARCH_X86_64, unix.AUDIT_ARCH_I386, unix.AUDIT_ARCH_AARCH64, unix.AUDIT_ARCH_S390X} {
		for _, bit := range []uint32{0, x32Bit} {
			for n := range uint32(620) {
				for range 6 {
					c := call{arch: arch, number: n | bit}
					for i := range c.args {
						c.args[i] = values[rng.IntN(len(values))]
					}
					all = append(all, c)
				}
			}
			all = append(all, call{arch: arch, number: 1<<30 - 1 | bit}, call{arch: arch, number: 0xffffffff})
		}
	}
	return all
}

// TestFilterMeansWhatTheProfileSays compares compiled filters with the judge over every system call.
func TestFilterMeansWhatTheProfileSays(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		profile string
		caps    []string
	}{
		"default":           {"", defaultCaps},
		"default, no caps":  {"", nil},
		"default, sysadmin": {"", []string{"CAP_SYS_ADMIN", "CAP_BPF", "CAP_PERFMON", "CAP_SYS_TIME"}},
		"deny list":         {`{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86"],"syscalls":[{"names":["connect","mkdir"],"action":"SCMP_ACT_ERRNO","errnoRet":13}]}`, nil},
		"nothing allowed":   {`{"defaultAction":"SCMP_ACT_KILL_PROCESS"}`, nil},
		"arguments": {`{"defaultAction":"SCMP_ACT_ERRNO","archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86","SCMP_ARCH_X32"]}],"syscalls":[
			{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":5,"op":"SCMP_CMP_GE"},{"index":2,"value":4294967296,"op":"SCMP_CMP_LT"}]},
			{"names":["write"],"action":"SCMP_ACT_TRAP","args":[{"index":1,"value":18446744073709551615,"op":"SCMP_CMP_EQ"}]},
			{"names":["write"],"action":"SCMP_ACT_LOG","args":[{"index":1,"value":4294967297,"op":"SCMP_CMP_GT"}]},
			{"names":["open"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"},{"index":0,"value":2,"op":"SCMP_CMP_EQ"}]},
			{"names":["close"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":4294967298,"op":"SCMP_CMP_LE"}]},
			{"names":["lseek"],"action":"SCMP_ACT_TRACE","errnoRet":7,"args":[{"index":0,"value":4294967298,"op":"SCMP_CMP_NE"}]},
			{"names":["mmap"],"action":"SCMP_ACT_KILL","args":[{"index":3,"value":1095216660735,"valueTwo":4294967297,"op":"SCMP_CMP_MASKED_EQ"}]},
			{"names":["shmget"],"action":"SCMP_ACT_ALLOW"},
			{"names":["mmap","stat"],"action":"SCMP_ACT_ALLOW","args":[{"index":5,"value":0,"op":"SCMP_CMP_EQ"}]}]}`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rules, err := resolve(test.profile, test.caps, "")
			if err != nil {
				t.Fatal(err)
			}
			vm := machineOf(t, test.profile, test.caps)
			wrong := 0
			for _, c := range calls(rules) {
				if got, want := run(t, vm, c), meaning(rules, c); got != want {
					if wrong++; wrong < 10 {
						t.Errorf("%#v: filter returns %#x, profile means %#x", c, got, want)
					}
				}
			}
		})
	}
}

// TestDefaultProfile pins what users rely on, by name and with numbers written out.
func TestDefaultProfile(t *testing.T) {
	t.Parallel()
	const allow, eperm, enosys = unix.SECCOMP_RET_ALLOW, unix.SECCOMP_RET_ERRNO | 1, unix.SECCOMP_RET_ERRNO | 38
	const x64, x86 = unix.AUDIT_ARCH_X86_64, unix.AUDIT_ARCH_I386
	plain, admin := machineOf(t, "", defaultCaps), machineOf(t, "", []string{"CAP_SYS_ADMIN"})
	for _, test := range []struct {
		name string
		vm   *bpf.VM
		c    call
		want uint32
	}{
		{"read", plain, call{arch: x64, number: unix.SYS_READ}, allow},
		{"mount", plain, call{arch: x64, number: unix.SYS_MOUNT}, eperm},
		{"mount as admin", admin, call{arch: x64, number: unix.SYS_MOUNT}, allow},
		{"chroot with its capability", plain, call{arch: x64, number: unix.SYS_CHROOT}, allow},
		{"chroot without", admin, call{arch: x64, number: unix.SYS_CHROOT}, eperm},
		{"clone of a thread", plain, call{arch: x64, number: unix.SYS_CLONE, args: [6]uint64{unix.CLONE_VM | unix.CLONE_THREAD}}, allow},
		{"clone of a namespace", plain, call{arch: x64, number: unix.SYS_CLONE, args: [6]uint64{unix.CLONE_NEWUSER}}, eperm},
		{"clone3 falls back", plain, call{arch: x64, number: unix.SYS_CLONE3}, enosys},
		{"a call of tomorrow", plain, call{arch: x64, number: 9999}, enosys},
		{"personality 0", plain, call{arch: x64, number: unix.SYS_PERSONALITY}, allow},
		{"personality ADDR_NO_RANDOMIZE", plain, call{arch: x64, number: unix.SYS_PERSONALITY, args: [6]uint64{0x40000}}, eperm},
		{"AF_INET", plain, call{arch: x64, number: unix.SYS_SOCKET, args: [6]uint64{unix.AF_INET}}, allow},
		{"AF_VSOCK", plain, call{arch: x64, number: unix.SYS_SOCKET, args: [6]uint64{unix.AF_VSOCK}}, eperm},
		{"x86 read", plain, call{arch: x86, number: 3}, allow},
		{"x86 mount", plain, call{arch: x86, number: 21}, eperm},
		{"x32 read", plain, call{arch: x64, number: x32Bit}, allow},
		{"x32 readv, its own number", plain, call{arch: x64, number: x32Bit | 515}, allow},
		{"arm64", plain, call{arch: unix.AUDIT_ARCH_AARCH64, number: 63}, unix.SECCOMP_RET_KILL_THREAD},
	} {
		if got := run(t, test.vm, test.c); got != test.want {
			t.Errorf("%s: returns %#x, want %#x", test.name, got, test.want)
		}
	}
	if n := len(program(t, "", defaultCaps)); n > 1000 {
		t.Errorf("the default filter has %d instructions; binary search should need fewer than 1000", n)
	}
}

// TestDenyListHoldsOnBothWaysToACall: x86 reaches connect through socketcall too.
func TestDenyListHoldsOnBothWaysToACall(t *testing.T) {
	t.Parallel()
	vm := machineOf(t, `{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],"syscalls":[{"names":["connect"],"action":"SCMP_ACT_ERRNO"}]}`, nil)
	const eperm = unix.SECCOMP_RET_ERRNO | 1
	for name, c := range map[string]call{
		"connect":       {arch: unix.AUDIT_ARCH_I386, number: 362},
		"socketcall(3)": {arch: unix.AUDIT_ARCH_I386, number: 102, args: [6]uint64{3}},
	} {
		if got := run(t, vm, c); got != eperm {
			t.Errorf("%s returns %#x, want EPERM", name, got)
		}
	}
	if got := run(t, vm, call{arch: unix.AUDIT_ARCH_I386, number: 102, args: [6]uint64{2}}); got != unix.SECCOMP_RET_ALLOW {
		t.Errorf("socketcall(2), bind, returns %#x, want allow", got)
	}
}

// TestResolveAgreesWithTheLibrary: our choice of rules differs only in whose kernel counts.
func TestResolveAgreesWithTheLibrary(t *testing.T) {
	t.Parallel()
	for _, caps := range [][]string{nil, defaultCaps, {"CAP_SYS_ADMIN", "CAP_SYSLOG", "CAP_DAC_READ_SEARCH"}} {
		spec := &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: caps}}}
		want, err := docker.GetDefaultProfile(spec)
		if err != nil {
			t.Fatal(err)
		}
		got, err := resolve("", caps, "99.0")
		if err != nil {
			t.Fatal(err)
		}
		if g, w := fmt.Sprint(got.Architectures, got.Syscalls), fmt.Sprint(want.Architectures, want.Syscalls); strings.Count(g, "SCMP") != strings.Count(w, "SCMP") || len(g) != len(w) {
			t.Errorf("with %v: resolved to %d rules, the library to %d", caps, len(got.Syscalls), len(want.Syscalls))
		}
	}
	old, err := resolve("", nil, "4.7")
	if err != nil {
		t.Fatal(err)
	}
	recent, _ := resolve("", nil, "4.8")
	if len(old.Syscalls) >= len(recent.Syscalls) {
		t.Errorf("kernel 4.7 gets %d rules and 4.8 %d: minKernel is not obeyed", len(old.Syscalls), len(recent.Syscalls))
	}
}

func TestBadProfilesAreRefused(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ profile, want string }{
		"no JSON":          {`{`, "reading the profile"},
		"unknown action":   {`{"defaultAction":"SCMP_ACT_MAYBE"}`, `no action "SCMP_ACT_MAYBE"`},
		"no default":       {`{"syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"}]}`, `no action ""`},
		"notify":           {`{"defaultAction":"SCMP_ACT_NOTIFY"}`, "listener"},
		"unknown operator": {`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_ERRNO","args":[{"index":0,"value":1,"op":"SCMP_CMP_LIKE"}]}]}`, "operator"},
		"argument 6":       {`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_ERRNO","args":[{"index":6,"value":1,"op":"SCMP_CMP_EQ"}]}]}`, "argument 6"},
		"errno":            {`{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":4096}`, "4096"},
		"architecture":     {`{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_Z80"]}`, "SCMP_ARCH_Z80"},
		"two kinds":        {`{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],"archMap":[{"architecture":"SCMP_ARCH_X86_64"}]}`, "archMap"},
		"name and names":   {`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"read","names":["write"],"action":"SCMP_ACT_ERRNO"}]}`, "names"},
		"too long":         {strings.Repeat(" ", maxProfileBytes+1), "bytes"},
	} {
		if filter, _, err := Compile(test.profile, nil, ""); err == nil || filter != "" || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %q, %v; want an error with %q", name, filter, err, test.want)
		}
	}
	if _, _, err := Compile("", nil, "six"); err == nil {
		t.Error("kernel version six was taken")
	}
}

func TestWhatHasNoEffectIsTold(t *testing.T) {
	t.Parallel()
	filter, warnings, err := Compile(`{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_LOG"],"syscalls":[{"names":["raed","read"],"action":"SCMP_ACT_ERRNO"}]}`, nil, "")
	if err != nil || filter == "" || len(warnings) != 2 || !strings.Contains(warnings[1], "raed") {
		t.Errorf("got %d bytes, %q, %v; want a filter, and warnings of the flags and the unknown name", len(filter), warnings, err)
	}
	if filter, warnings, err := Compile(`{}`, nil, ""); filter != "" || len(warnings) != 0 || err != nil {
		t.Errorf("an empty profile gave %q, %q, %v; want no filter", filter, warnings, err)
	}
}

// TestLongJumps: conditions on many calls make blocks that no conditional jump spans.
func TestLongJumps(t *testing.T) {
	t.Parallel()
	var rules []string
	for n, name := range slices.Sorted(func(yield func(string) bool) {
		for name := range native().numbers {
			if !yield(name) {
				return
			}
		}
	}) {
		if n < 150 {
			rules = append(rules, fmt.Sprintf(`{"names":[%q],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":%d,"op":"SCMP_CMP_EQ"},{"index":1,"value":%d,"op":"SCMP_CMP_GT"}]}`, name, n, n))
		}
	}
	profile := `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[` + strings.Join(rules, ",") + `]}`
	resolved, err := resolve(profile, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	vm := machineOf(t, profile, nil)
	for _, c := range calls(resolved) {
		if got, want := run(t, vm, c), meaning(resolved, c); got != want {
			t.Fatalf("%#v: filter returns %#x, profile means %#x", c, got, want)
		}
	}
	huge := `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[` + strings.Repeat(strings.Join(rules, ",")+",", 4) + strings.Join(rules, ",") + `]}`
	if _, _, err := Compile(huge, nil, ""); err == nil || !strings.Contains(err.Error(), "4096") && !strings.Contains(err.Error(), "bytes") {
		t.Errorf("a profile for more than 4096 instructions gave %v", err)
	}
}

// FuzzCompile: whatever the JSON, Compile answers, and what it makes is a valid filter.
func FuzzCompile(f *testing.F) {
	f.Add(`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_ERRNO","args":[{"index":0,"value":1,"op":"SCMP_CMP_MASKED_EQ"}]}]}`)
	f.Add(`{"defaultAction":"SCMP_ACT_ERRNO","archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86"]}],"syscalls":[null,{"name":"read","action":"SCMP_ACT_ALLOW","includes":{"minKernel":"4.8"}}]}`)
	f.Fuzz(func(t *testing.T, profile string) {
		filter, _, err := Compile(profile, nil, "")
		if err != nil || filter == "" {
			return
		}
		machineOf(t, profile, nil)
	})
}

func BenchmarkCompileDefault(b *testing.B) {
	for b.Loop() {
		if _, _, err := Compile("", defaultCaps, ""); err != nil {
			b.Fatal(err)
		}
	}
}
