// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"encoding/base64"
	"fmt"
	"os"
	"path"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// SeccompAnnotation is the spec's annotation with the seccomp filter as the kernel
// takes it: base64 of an array of struct sock_filter, compiled on the host.
const SeccompAnnotation = "io.micropod.seccomp.bpf"

// maxFilters is how many instructions the kernel takes in a filter (BPF_MAXINSNS).
const maxFilters = 4096

// compiled is a spec turned into a plan, with what goes along.
type compiled struct {
	plan   containerPlan
	shape  stemShape
	limits limits
	fds    []int // detached mounts and namespaces the plan refers to by number; owned
}

func (c *compiled) close() { closeAll(c.fds) }

// add takes a descriptor over and tells its number.
func (c *compiled) add(fd int) int {
	c.fds = append(c.fds, fd)
	return len(c.fds) - 1
}

// compile checks a request and makes the plan of it. The caller closes the result.
func compile(req *StartRequest) (*compiled, error) {
	c := &compiled{}
	if err := c.compile(req); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (c *compiled) compile(req *StartRequest) error {
	if err := supported(req.Spec); err != nil {
		return err
	}
	s := req.Spec
	c.plan.Hostname, c.plan.Domainname = s.Hostname, s.Domainname
	c.plan.Files = req.Files
	c.plan.Masked, c.plan.Readonly = s.Linux.MaskedPaths, s.Linux.ReadonlyPaths
	for key, value := range s.Linux.Sysctl {
		c.plan.Sysctls = append(c.plan.Sysctls, sysctlPlan{key, value})
	}
	steps := []func() error{
		func() error { return c.process(req) },
		func() error { return c.namespaces(s) },
		func() error { return c.root(s, req.RootFS) },
		func() error { return c.mounts(s.Mounts) },
		func() error { return c.devices(s.Linux.Devices) },
		func() (err error) { c.limits, err = planLimits(s.Linux.Resources); return err },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// supported refuses what this runtime does not do, rather than leave it out silently.
func supported(s *specs.Spec) error {
	switch {
	case s == nil || s.Process == nil || s.Linux == nil:
		return invalid("the spec lacks its process or linux part")
	case s.Hooks != nil:
		return invalid("hooks are not supported")
	case len(s.Linux.UIDMappings)+len(s.Linux.GIDMappings) > 0:
		return invalid("user namespaces are not supported")
	case s.Linux.IntelRdt != nil || s.Linux.MemoryPolicy != nil || len(s.Linux.TimeOffsets) > 0 || len(s.Linux.NetDevices) > 0:
		return invalid("intelRdt, memoryPolicy, timeOffsets and netDevices are not supported")
	case s.Linux.Seccomp != nil && s.Annotations[SeccompAnnotation] == "":
		return invalid("linux.seccomp has not been compiled into annotation %s", SeccompAnnotation)
	}
	return nil
}

func (c *compiled) process(req *StartRequest) error {
	p, err := planProcess(req.Spec.Process)
	if err != nil {
		return err
	}
	p.User, p.GroupAdd, p.Init, p.MakeCwd = req.User, req.GroupAdd, req.Init, true
	if p.Seccomp, err = seccompFilter(req.Spec.Annotations[SeccompAnnotation]); err != nil {
		return err
	}
	if persona := req.Spec.Linux.Personality; persona != nil {
		numbers := map[specs.LinuxPersonalityDomain]uint64{specs.PerLinux: 0, specs.PerLinux32: 8}
		number, ok := numbers[persona.Domain]
		if !ok || len(persona.Flags) > 0 {
			return invalid("personality %q with flags %v is not supported", persona.Domain, persona.Flags)
		}
		p.Personality, p.SetPersona = number, true
	}
	c.plan.Process = *p
	return nil
}

func seccompFilter(encoded string) ([]byte, error) {
	if encoded == "" {
		return nil, nil
	}
	filter, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return nil, invalid("annotation %s: %v", SeccompAnnotation, err)
	}
	if len(filter)%filterSize != 0 || len(filter) > maxFilters*filterSize || len(filter) == 0 {
		return nil, invalid("annotation %s: %d bytes are no seccomp filter", SeccompAnnotation, len(filter))
	}
	return filter, nil
}

func (c *compiled) root(s *specs.Spec, from RootFS) error {
	p := &c.plan.Root
	p.Folder = -1
	p.Readonly = s.Root != nil && s.Root.Readonly
	if name := s.Linux.RootfsPropagation; name != "" {
		flag, ok := propagations[name]
		if !ok {
			return invalid("root file system propagation %q", name)
		}
		p.Propagation = flag
	}
	var err error
	if from.Dir != "" {
		fd, err := openMount(from.Dir, true)
		if err != nil {
			return fmt.Errorf("opening the root file system %s: %w", from.Dir, err)
		}
		p.Folder = c.add(fd)
		return nil
	}
	if p.Image, err = blockDevice(from.ImageDevice); err != nil {
		return fmt.Errorf("image device: %w", err)
	}
	if from.ScratchDevice == "" {
		return nil
	}
	if p.Scratch, err = blockDevice(from.ScratchDevice); err != nil {
		return fmt.Errorf("scratch device: %w", err)
	}
	return nil
}

func blockDevice(name string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil {
		return 0, &os.PathError{Op: "stat", Path: name, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return 0, invalid("%s is not a block device", name)
	}
	return st.Rdev, nil
}

// openMount makes a detached bind mount, here and not in the stem: the stem does
// not see what was mounted since it was made.
func openMount(name string, recursive bool) (int, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	return unix.OpenTree(unix.AT_FDCWD, name, flags)
}

func (c *compiled) mounts(mounts []specs.Mount) error {
	for _, m := range mounts {
		p, err := planMount(m)
		if err != nil {
			return err
		}
		if isBind(m) {
			if err := c.bind(&p, m); err != nil {
				return fmt.Errorf("bind mount on %s: %w", m.Destination, err)
			}
		}
		c.plan.Mounts = append(c.plan.Mounts, p)
	}
	return nil
}

func (c *compiled) bind(p *mountPlan, m specs.Mount) error {
	recursive := containsAll(m.Options, []string{"rbind"})
	fd, err := openMount(m.Source, recursive)
	if err != nil {
		return &os.PathError{Op: "open", Path: m.Source, Err: err}
	}
	p.FD = c.add(fd)
	folder, err := isFolder(fd)
	p.File = !folder
	return err
}

func (c *compiled) devices(devices []specs.LinuxDevice) error {
	types := map[string]uint32{"c": unix.S_IFCHR, "u": unix.S_IFCHR, "b": unix.S_IFBLK, "p": unix.S_IFIFO}
	for _, d := range devices {
		kind, ok := types[d.Type]
		if !ok || !path.IsAbs(d.Path) {
			return invalid("device %q of type %q", d.Path, d.Type)
		}
		p := devicePlan{Path: d.Path, Mode: kind | 0o666, Device: unix.Mkdev(uint32(d.Major), uint32(d.Minor))}
		if d.FileMode != nil {
			p.Mode = kind | uint32(*d.FileMode)&0o7777
		}
		if d.UID != nil {
			p.UID = *d.UID
		}
		if d.GID != nil {
			p.GID = *d.GID
		}
		c.plan.Devices = append(c.plan.Devices, p)
	}
	return nil
}

// planProcess turns a spec's process into numbers.
func planProcess(s *specs.Process) (*processPlan, error) {
	if s == nil || len(s.Args) == 0 {
		return nil, invalid("no command specified")
	}
	if s.Scheduler != nil || s.IOPriority != nil || s.ExecCPUAffinity != nil {
		return nil, invalid("scheduler, ioPriority and execCPUAffinity are not supported")
	}
	p := &processPlan{
		Args: s.Args, Env: s.Env, Cwd: s.Cwd, Terminal: s.Terminal,
		UID: s.User.UID, GID: s.User.GID, Groups: s.User.AdditionalGids, Umask: 0o022,
		NoNewPrivs: s.NoNewPrivileges, Stdio: [3]int{-1, -1, -1},
	}
	if p.Cwd == "" {
		p.Cwd = "/"
	}
	if !strings.HasPrefix(p.Cwd, "/") {
		return nil, &StartError{Kind: ErrWorkingDir, Sentence: fmt.Sprintf("working directory %q is not an absolute path", p.Cwd)}
	}
	if s.User.Umask != nil {
		p.Umask = *s.User.Umask & 0o777
	}
	if s.ConsoleSize != nil {
		p.Rows, p.Cols = uint32(s.ConsoleSize.Height), uint32(s.ConsoleSize.Width)
	}
	var err error
	if p.Rlimits, err = planRlimits(s.Rlimits); err != nil {
		return nil, err
	}
	p.Caps, err = planCaps(s.Capabilities)
	return p, err
}
