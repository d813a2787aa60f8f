// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"fmt"
	"strings"
)

// Boot is what the guest's kernel is told. The zero value of a field leaves its part out.
type Boot struct {
	TSCKHz   uint64   // of [TSCKHz]; required with QEMU's microvm
	VCPUs    int      // required
	Emulated bool     // the CPU is emulated in software (TCG)
	Console  string   // where the kernel and the agent write, such as "ttyS0"
	Reboot   string   // how a reboot ends the VMM: "t" (triple fault) on microvm, "k" on Firecracker
	Extra    []string // further parameters, last, so that they win
}

// CommandLine returns the guest kernel's parameters (Documentation/admin-guide/kernel-parameters.txt).
//
// The figures are what a parameter took off a boot in software emulation, from the start
// of QEMU to user space, of 1.5 s on one vCPU.
func CommandLine(b Boot) string {
	args := []string{
		"quiet",               // each line of the log costs serial port exits
		"panic=-1",            // a panic ends the machine at once, which is how a crash is noticed
		"cryptomgr.notests=1", // -0.35 s: no self-tests of ciphers at each boot
		"random.trust_cpu=on", // entropy at once; the agent adds the host's before the first container
		"apparmor=0",          // containers are confined by other means in the guest
		// -0.1 s until a first container runs: loading modules, cgroups, mounts and interfaces wait for
		// grace periods, 10-20 ms each when the one CPU has to come round to them by itself.
		"rcupdate.rcu_expedited=1",
		// What the kernel does not know goes into init's environment. A goroutine that the scheduler would like to interrupt comes
		// to a call soon; a signal for it is a thousand instructions more that run for the first time after a restore.
		"GODEBUG=asyncpreemptoff=1",
		"tsc=reliable", // the counter is the host's and needs no watchdog
	}
	if b.TSCKHz != 0 {
		args = append(args, fmt.Sprintf("tsc_early_khz=%d", b.TSCKHz)) // see TSCKHz
	}
	if b.VCPUs == 1 {
		args = append(args, "noreplace-smp") // -0.2 s: one CPU needs no patching for many or back
	}
	if b.Emulated {
		// An emulated CPU does not speculate; on a real one the guest protects its
		// containers from each other as any kernel does.
		args = append(args, "mitigations=off")
	}
	if b.Console != "" {
		args = append(args, "console="+b.Console)
	}
	if b.Reboot != "" {
		args = append(args, "reboot="+b.Reboot)
	}
	return strings.Join(append(args, b.Extra...), " ")
}
