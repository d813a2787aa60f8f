// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Package doctor looks at what the host has and says what that means for machines,
// with a mend for each lack.
//
// New, then Checks as often as asked, from any goroutine. It changes nothing on the host;
// the question whether KVM works may boot a machine, whose answer the engine keeps. internal/server
// and cmd/micropodd use it.
package doctor

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"time"

	"github.com/containerd/cgroups/v3"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/guest/kernel"
)

// Status says how much a finding matters.
type Status int

const (
	// OK: as it should be.
	OK Status = iota + 1
	// Warning: machines run, but less well.
	Warning
	// Failed: machines cannot run.
	Failed
)

// Check is one finding.
type Check struct {
	Name    string // "kvm", "qemu", "kernel", ...
	Status  Status
	Finding string
	Mend    string // what to do; empty when OK
}

// Config is what a Doctor looks at. All fields are required.
type Config struct {
	// ProbeKVM says whether KVM runs a guest, and if not why. It may boot one.
	ProbeKVM func(context.Context) (usable bool, why string, err error)
	// Firecracker says which programs are found and of which version, or why they do not do.
	Firecracker func() (found, version string, err error)
	// Auto names the engine that machines get which ask for none.
	Auto func(context.Context) string
	// QEMU is the name or path of the binary.
	QEMU string
	// Kernel finds the guests' kernel with its modules.
	Kernel func() (kernel.Kernel, error)
	// Agent is the path of the guest agent.
	Agent string
	// DataDir is where disks and images are.
	DataDir string
}

// Doctor makes the checks.
type Doctor struct{ Config }

// New makes a Doctor.
func New(c Config) *Doctor { return &Doctor{c} }

// checkLimit bounds one check; a probe boot of KVM takes at most some seconds.
const checkLimit = 30 * time.Second

// Checks makes all checks, those of all engines first.
func (d *Doctor) Checks(ctx context.Context) []Check {
	ctx, cancel := context.WithTimeout(ctx, checkLimit)
	defer cancel()
	all := []func(context.Context) Check{d.kvm, d.firecracker, d.qemu, d.auto, d.kernel, d.agent, d.mkfs, d.cgroups, d.disk}
	found := make([]Check, len(all))
	var together errgroup.Group
	for i, check := range all {
		together.Go(func() error { found[i] = check(ctx); return nil })
	}
	_ = together.Wait() // none gives an error
	soften(found)
	return found
}

// soften makes a lack of QEMU a warning where Firecracker runs machines.
func soften(found []Check) {
	status := make(map[string]Status)
	for _, c := range found {
		status[c.Name] = c.Status
	}
	for i, c := range found {
		if c.Name == "qemu" && c.Status == Failed && status["kvm"] == OK && status["firecracker"] == OK {
			found[i].Status = Warning
		}
	}
}

func (d *Doctor) kvm(ctx context.Context) Check {
	const mend = "switch on virtualisation in the firmware (or nested virtualisation on a cloud host) and load kvm_intel or kvm_amd; machines run in software emulation until then"
	usable, why, err := d.ProbeKVM(ctx)
	switch {
	case err != nil:
		return Check{"kvm", Warning, "not known: " + err.Error(), "mend the other findings first"}
	case !usable:
		return Check{"kvm", Warning, "not usable: " + strings.Join(strings.Fields(why), " "), mend}
	}
	return Check{"kvm", OK, "it runs a guest", ""}
}

func (d *Doctor) firecracker(context.Context) Check {
	found, version, err := d.Firecracker()
	if err != nil {
		return Check{"firecracker", Warning, err.Error(), "scripts/install-firecracker.sh installs the official release, or set firecracker and jailer in the configuration; QEMU runs machines until then"}
	}
	return Check{"firecracker", OK, found + ", version " + version, ""}
}

func (d *Doctor) auto(ctx context.Context) Check {
	return Check{"engine", OK, "machines that ask for none get " + d.Auto(ctx), ""}
}

// minQEMU is the oldest that the engine was tried with.
var minQEMU = [2]int{7, 2}

var qemuVersion = regexp.MustCompile(`version (\d{1,4})\.(\d{1,4})[\w.]*`)

func (d *Doctor) qemu(ctx context.Context) Check {
	const mend = "apt-get install qemu-system-x86"
	path, err := exec.LookPath(d.QEMU)
	if err != nil {
		return Check{"qemu", Failed, err.Error(), mend + ", or set qemu in the configuration"}
	}
	version, err := d.QEMUVersion(ctx)
	if err != nil {
		return Check{"qemu", Failed, err.Error(), mend}
	}
	var have [2]int
	if _, err := fmt.Sscanf(version, "%d.%d", &have[0], &have[1]); err != nil {
		return Check{"qemu", Warning, path + " has a version that is not understood: " + version, mend}
	}
	if have[0] < minQEMU[0] || have[0] == minQEMU[0] && have[1] < minQEMU[1] {
		return Check{"qemu", Failed, fmt.Sprintf("%s is version %s, too old", path, version), fmt.Sprintf("install QEMU %d.%d or newer", minQEMU[0], minQEMU[1])}
	}
	return Check{"qemu", OK, path + ", version " + version, ""}
}

// EngineVersion is that of an engine's program, such as "1.12.1".
func (d *Doctor) EngineVersion(ctx context.Context, engine string) (string, error) {
	if engine != "firecracker" {
		return d.QEMUVersion(ctx)
	}
	_, version, err := d.Firecracker()
	return version, err
}

// QEMUVersion asks the binary, such as "7.2.22".
func (d *Doctor) QEMUVersion(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, d.QEMU, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("asking %s for its version: %w", d.QEMU, err)
	}
	m := qemuVersion.Find(out)
	if m == nil {
		return "", fmt.Errorf("%s does not tell its version", d.QEMU)
	}
	return string(m[len("version "):]), nil
}

func (d *Doctor) kernel(context.Context) Check {
	k, err := d.Kernel()
	if err != nil {
		return Check{"kernel", Failed, err.Error(), kernel.Mend + ", or set kernel in the configuration"}
	}
	return Check{"kernel", OK, fmt.Sprintf("%s, version %s, modules in %s", k.Path, k.Version, k.ModulesDir), ""}
}

func (d *Doctor) agent(context.Context) Check {
	info, err := os.Stat(d.Agent)
	const mend = "install micropod-agent beside micropodd, or set agent in the configuration"
	switch {
	case err != nil:
		return Check{"agent", Failed, err.Error(), mend}
	case !info.Mode().IsRegular() || info.Mode()&0o111 == 0:
		return Check{"agent", Failed, d.Agent + " is no executable", mend}
	}
	return Check{"agent", OK, fmt.Sprintf("%s, %.1f MB", d.Agent, float64(info.Size())/1e6), ""}
}

func (d *Doctor) mkfs(context.Context) Check {
	for _, name := range []string{"mkfs.ext4", "/usr/sbin/mkfs.ext4", "/sbin/mkfs.ext4"} {
		if path, err := exec.LookPath(name); err == nil {
			return Check{"mkfs.ext4", OK, path, ""}
		}
	}
	return Check{"mkfs.ext4", Failed, "not found: machines' disks cannot be made", "apt-get install e2fsprogs"}
}

func (d *Doctor) cgroups(context.Context) Check {
	version := CgroupVersion()
	if version == "" {
		return Check{"cgroups", Warning, "not mounted: the memory of VMMs is not limited", "mount cgroup2 on /sys/fs/cgroup"}
	}
	return Check{"cgroups", OK, "version " + version, ""}
}

// CgroupVersion is "1", "2" or empty.
func CgroupVersion() string {
	switch cgroups.Mode() {
	case cgroups.Unified:
		return "2"
	case cgroups.Legacy, cgroups.Hybrid:
		return "1"
	default:
		return ""
	}
}

// Space below which machines hardly work, and below which users should know (bytes).
const (
	failSpace = 256 << 20
	warnSpace = 4 << 30
)

func (d *Doctor) disk(context.Context) Check {
	var fs unix.Statfs_t
	if err := unix.Statfs(d.DataDir, &fs); err != nil {
		return Check{"disk", Failed, fmt.Sprintf("%s: %v", d.DataDir, err), "make the folder, or choose another with --data-dir"}
	}
	free := int64(fs.Bavail) * fs.Bsize
	finding := fmt.Sprintf("%.1f GB free below %s", float64(free)/1e9, d.DataDir)
	const mend = "free space (micropod rmi, micropod rm), or choose another folder with --data-dir"
	switch {
	case free < failSpace:
		return Check{"disk", Failed, finding, mend}
	case free < warnSpace:
		return Check{"disk", Warning, finding, mend}
	}
	return Check{"disk", OK, finding, ""}
}
