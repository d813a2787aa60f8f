// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/pflag"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

// containerFlags are the flags that run and create share. Names and
// meanings are Docker's; those of the machine are ours.
type containerFlags struct {
	networkFlags
	name, user, workdir, hostname, domainname, entrypoint string
	env, envFiles, labels, labelFiles, annotations        []string
	tty, stdin, privileged, readOnly, init, autoRemove    bool
	capAdd, capDrop, securityOpt, groupAdd                []string
	tmpfs, devices, sysctls, ulimits                      []string
	addHosts, dns, dnsSearch, dnsOptions                  []string
	memory, memorySwap, memoryReservation, shmSize, cpus  string
	cpuPeriod, cpuQuota                                   int64 // microseconds
	cpuShares, pidsLimit                                  int64
	cpusetCPUs, stopSignal, platform, pull                string
	stopTimeout                                           int
	idleTimeout                                           time.Duration
	storageOpts                                           []string
	restart                                               string
	health                                                healthFlags
	log                                                   logFlags
	oomScoreAdj                                           int32
	vcpus                                                 uint32
	kernel, engine                                        string
	kernelArgs                                            []string
	nested                                                bool
	disk                                                  diskFlags
}

func (o *containerFlags) addFlags(f *pflag.FlagSet) {
	f.SetInterspersed(false)                      // what follows the image is the container's
	f.Bool("help", false, "explain this command") // -h is the host name, as in Docker
	f.StringVar(&o.name, "name", "", "name of the container (chosen when not given)")
	f.BoolVarP(&o.tty, "tty", "t", false, "give the process a terminal")
	f.BoolVarP(&o.stdin, "interactive", "i", false, "keep standard input open")
	f.StringArrayVarP(&o.env, "env", "e", nil, "set an environment variable; `NAME` alone takes the caller's value")
	f.StringArrayVar(&o.envFiles, "env-file", nil, "read environment variables from a `file`")
	f.StringVarP(&o.user, "user", "u", "", "user of the process: `name|uid[:group|gid]`")
	f.StringSliceVar(&o.groupAdd, "group-add", nil, "add a supplementary `group`")
	f.StringVarP(&o.workdir, "workdir", "w", "", "working `directory` of the process")
	f.StringVar(&o.entrypoint, "entrypoint", "", "replace the image's entrypoint (empty: none)")
	f.StringVarP(&o.hostname, "hostname", "h", "", "host `name` within the container")
	f.StringVar(&o.domainname, "domainname", "", "domain `name` within the container")
	f.StringArrayVarP(&o.labels, "label", "l", nil, "set a label `key=value`")
	f.StringArrayVar(&o.labelFiles, "label-file", nil, "read labels from a `file`")
	f.StringArrayVar(&o.annotations, "annotation", nil, "set an annotation `key=value` of the OCI runtime spec")
	f.StringVar(&o.stopSignal, "stop-signal", "", "`signal` that asks the process to end (default: the image's, else SIGTERM)")
	o.addIdle(f)
	f.IntVar(&o.stopTimeout, "stop-timeout", 0, "`seconds` between the stop signal and SIGKILL (default 10)")
	addRestart(f, &o.restart)
	o.health.addFlags(f)
	o.log.addFlags(f)
	f.StringVar(&o.pull, "pull", "missing", "pull the image: `always|missing|never`")
	f.StringVar(&o.platform, "platform", "", "`os/arch` of the image")
	o.addRights(f)
	o.addLimits(f)
	o.addNames(f)
	o.addNetwork(f)
	o.addMachine(f)
	addRefused(f)
}

func (o *containerFlags) addRights(f *pflag.FlagSet) {
	f.BoolVar(&o.privileged, "privileged", false, "all rights within the machine")
	f.StringSliceVar(&o.capAdd, "cap-add", nil, "add a `capability` (or ALL)")
	f.StringSliceVar(&o.capDrop, "cap-drop", nil, "drop a `capability` (or ALL)")
	f.StringArrayVar(&o.securityOpt, "security-opt", nil, "`option`: seccomp=unconfined, seccomp=FILE, no-new-privileges")
	f.BoolVar(&o.readOnly, "read-only", false, "the root file system cannot be written")
	f.StringArrayVar(&o.tmpfs, "tmpfs", nil, "mount a tmpfs at `path[:options]`")
	f.StringArrayVar(&o.devices, "device", nil, "let the container use a device of its machine: `path[:path][:rwm]`")
	f.StringArrayVar(&o.sysctls, "sysctl", nil, "set a kernel parameter `name=value`")
	f.StringArrayVar(&o.ulimits, "ulimit", nil, "set a resource limit `name=soft[:hard]`")
	f.BoolVar(&o.init, "init", false, "run an init as PID 1 that passes on signals and reaps")
}

func (o *containerFlags) addLimits(f *pflag.FlagSet) {
	o.addCgroup(f)
	f.StringVar(&o.shmSize, "shm-size", "", "`size` of /dev/shm (default 64m)")
	f.Int32Var(&o.oomScoreAdj, "oom-score-adj", 0, "tune the choice of what dies when memory is short (-1000 to 1000)")
	f.StringArrayVar(&o.storageOpts, "storage-opt", nil, "`size=10g`: size of the writable layer")
}

// addCgroup declares the limits that update changes too.
func (o *containerFlags) addCgroup(f *pflag.FlagSet) {
	f.StringVarP(&o.memory, "memory", "m", "", "memory limit, such as 512m; picks the machine's `size`")
	f.StringVar(&o.memorySwap, "memory-swap", "", "limit of memory and swap together; -1: none (`size`)")
	f.StringVar(&o.cpus, "cpus", "", "`number` of CPUs, such as 1.5; picks the machine's vCPUs")
	f.StringVar(&o.memoryReservation, "memory-reservation", "", "soft memory limit (`size`): memory below it is taken last")
	f.Int64Var(&o.cpuPeriod, "cpu-period", 0, "`microseconds` that --cpu-quota is for (default 100000)")
	f.Int64Var(&o.cpuQuota, "cpu-quota", 0, "`microseconds` of CPU time in each --cpu-period, as --cpus")
	f.Int64VarP(&o.cpuShares, "cpu-shares", "c", 0, "relative `weight` of CPU time")
	f.StringVar(&o.cpusetCPUs, "cpuset-cpus", "", "vCPUs to run on, such as `0-1`")
	f.Int64Var(&o.pidsLimit, "pids-limit", 0, "most processes at once; -1: no limit")
}

func (o *containerFlags) addNames(f *pflag.FlagSet) {
	f.StringArrayVar(&o.addHosts, "add-host", nil, "add a line to /etc/hosts: `name:address`; host-gateway stands for the host's address")
	f.StringArrayVar(&o.dns, "dns", nil, "`address` of a name server")
	f.StringArrayVar(&o.dnsSearch, "dns-search", nil, "search `domain`")
	f.StringArrayVar(&o.dnsOptions, "dns-option", nil, "`option` of the resolver")
	f.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if name == "dns-opt" { // docker's older name
			name = "dns-option"
		}
		return pflag.NormalizedName(name)
	})
}

func (o *containerFlags) addMachine(f *pflag.FlagSet) {
	f.Uint32Var(&o.vcpus, "vcpus", 0, "`number` of the machine's vCPUs (default: from --cpus)")
	f.StringVar(&o.kernel, "kernel", "", "guest kernel `file`: vmlinux or bzImage (default: the daemon's)")
	f.StringArrayVar(&o.kernelArgs, "kernel-arg", nil, "add an `argument` to the kernel's command line")
	f.StringVar(&o.engine, "engine", "auto", "`engine` that runs the machine")
	f.BoolVar(&o.nested, "nested", false, "let the machine run virtual machines itself")
	o.disk.addFlags(f)
}

func (o *containerFlags) addIdle(f *pflag.FlagSet) {
	f.DurationVar(&o.idleTimeout, "idle-timeout", 0, "suspend the container to disk when nobody needed it for so long, such as 10m; the next call wakes it (0: never)")
}

// config reads flags and positional words into what the API takes.
func (o *containerFlags) config(f *pflag.FlagSet, args []string) (*v1.ContainerConfig, error) {
	c := &v1.ContainerConfig{
		Image: args[0], Command: args[1:], Name: o.name, User: o.user, GroupAdd: o.groupAdd, WorkingDir: o.workdir,
		Hostname: o.hostname, Domainname: o.domainname, Tty: o.tty, Stdin: o.stdin,
		StopSignal: o.stopSignal, StopTimeoutSeconds: uint32(max(0, o.stopTimeout)),
		IdleTimeoutNanos: o.idleTimeout.Nanoseconds(),
		Privileged:       o.privileged, CapAdd: o.capAdd, CapDrop: o.capDrop, ReadOnly: o.readOnly, Init: o.init,
		AutoRemove: o.autoRemove, ExtraHosts: o.addHosts, Dns: o.dns, DnsSearch: o.dnsSearch, DnsOptions: o.dnsOptions,
		Platform: o.platform, OomScoreAdj: o.oomScoreAdj, Pull: o.pull,
	}
	if f.Changed("entrypoint") {
		c.EntrypointSet = true
		if o.entrypoint != "" {
			c.Entrypoint = []string{o.entrypoint}
		}
	}
	for _, step := range []func(*v1.ContainerConfig) error{
		o.readEnv, o.readLabels, o.readMounts, o.readSecurity, o.readResources, o.disk.check, o.readMachine, o.readNetwork, o.readRestart, o.health.read, o.log.read,
	} {
		if err := step(c); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (o *containerFlags) readEnv(c *v1.ContainerConfig) (err error) {
	c.Env, err = environment(o.envFiles, o.env)
	return err
}

func (o *containerFlags) readLabels(c *v1.ContainerConfig) error {
	lines, err := keyValueFiles("--label-file", o.labelFiles)
	if err != nil {
		return err
	}
	c.Labels = pairs(append(lines, o.labels...))
	c.Annotations = pairs(o.annotations)
	for _, s := range o.sysctls {
		if !strings.Contains(s, "=") {
			return usagef("write it like --sysctl net.ipv4.ip_forward=1", "--sysctl %q has no value", s)
		}
	}
	c.Sysctls = pairs(o.sysctls)
	return nil
}

func (o *containerFlags) readMounts(c *v1.ContainerConfig) error {
	for _, t := range o.tmpfs {
		path, options, _ := strings.Cut(t, ":")
		if !strings.HasPrefix(path, "/") {
			return usagef("write it like --tmpfs /run:size=64m", "--tmpfs %q: the path is not absolute", t)
		}
		if c.Tmpfs == nil {
			c.Tmpfs = map[string]string{}
		}
		c.Tmpfs[path] = options
	}
	for _, d := range o.devices {
		device, err := parseDevice(d)
		if err != nil {
			return err
		}
		c.Devices = append(c.Devices, device)
	}
	for _, u := range o.ulimits {
		limit, err := parseUlimit(u)
		if err != nil {
			return err
		}
		c.Ulimits = append(c.Ulimits, limit)
	}
	return nil
}

// maxProfile bounds a seccomp profile's file.
const maxProfile = 1 << 20

func (o *containerFlags) readSecurity(c *v1.ContainerConfig) error {
	for _, opt := range o.securityOpt {
		name, val, _ := strings.Cut(opt, "=")
		if name == "seccomp" && val != "unconfined" && val != "builtin" && !strings.HasPrefix(strings.TrimSpace(val), "{") {
			profile, err := readBounded(val, maxProfile)
			if err != nil {
				return fmt.Errorf("reading the seccomp profile: %w", err)
			}
			opt = "seccomp=" + string(profile)
		}
		c.SecurityOpt = append(c.SecurityOpt, opt)
	}
	return nil
}

func (o *containerFlags) readResources(c *v1.ContainerConfig) (err error) {
	r := &v1.Resources{PidsLimit: o.pidsLimit, CpuShares: o.cpuShares, CpusetCpus: o.cpusetCPUs}
	if r.MemoryBytes, err = parseSize("--memory", o.memory); err != nil {
		return err
	}
	if o.memorySwap == "-1" {
		r.MemorySwapBytes = -1
	} else if r.MemorySwapBytes, err = parseSize("--memory-swap", o.memorySwap); err != nil {
		return err
	}
	if r.ShmBytes, err = parseSize("--shm-size", o.shmSize); err != nil {
		return err
	}
	if r.MemoryReservationBytes, err = parseSize("--memory-reservation", o.memoryReservation); err != nil {
		return err
	}
	if r.NanoCpus, err = o.nanoCPUs(); err != nil {
		return err
	}
	for _, opt := range o.storageOpts {
		size, ok := strings.CutPrefix(opt, "size=")
		if !ok {
			return usagef("the one option is size=, such as --storage-opt size=20g", "--storage-opt %q is unknown", opt)
		}
		if r.ScratchBytes, err = parseSize("--storage-opt size", size); err != nil {
			return err
		}
	}
	c.Resources = r
	return nil
}

func (o *containerFlags) readMachine(c *v1.ContainerConfig) error {
	c.Vm = o.machine()
	return nil
}

// machine is what the flags say of the machine itself.
func (o *containerFlags) machine() *v1.VMConfig {
	return &v1.VMConfig{
		VcpuCount: o.vcpus, KernelImagePath: o.kernel, KernelArgs: strings.Join(o.kernelArgs, " "),
		Engine: o.engine, Nested: o.nested, RateLimiters: o.disk.limiters,
	}
}

// parseSize reads Docker's sizes: 1024, 512k, 64m, 2g. Empty is 0.
func parseSize(flag, s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	n, err := units.RAMInBytes(s)
	if err != nil || n < 0 {
		return 0, usagef("write a size like 512m or 2g", "%s %q is no size", flag, s)
	}
	return n, nil
}

func parseUlimit(s string) (*v1.Ulimit, error) {
	u, err := units.ParseUlimit(s)
	if err != nil {
		return nil, usagef("write it like --ulimit nofile=1024:2048", "--ulimit %q: %v", s, err)
	}
	return &v1.Ulimit{Name: u.Name, Soft: u.Soft, Hard: u.Hard}, nil
}

func parseDevice(s string) (*v1.Device, error) {
	parts := strings.Split(s, ":")
	d := &v1.Device{HostPath: parts[0], ContainerPath: parts[0], Permissions: "rwm"}
	switch len(parts) {
	case 1:
	case 2:
		if strings.HasPrefix(parts[1], "/") {
			d.ContainerPath = parts[1]
		} else {
			d.Permissions = parts[1]
		}
	case 3:
		d.ContainerPath, d.Permissions = parts[1], parts[2]
	default:
		return nil, usagef("write it like --device /dev/fuse:/dev/fuse:rwm", "--device %q has too many parts", s)
	}
	if strings.Trim(d.Permissions, "rwm") != "" || d.Permissions == "" {
		return nil, usagef("permissions are letters of rwm", "--device %q: permissions %q", s, d.Permissions)
	}
	return d, nil
}

// pairs splits key=value; a key alone has the empty value; the last one counts.
func pairs(list []string) map[string]string {
	if len(list) == 0 {
		return nil
	}
	m := make(map[string]string, len(list))
	for _, l := range list {
		k, v, _ := strings.Cut(l, "=")
		m[k] = v
	}
	return m
}

// readBounded reads a user's file whole, refusing one that is too large.
func readBounded(path string, limit int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > limit {
		return nil, fmt.Errorf("%s is larger than %s", path, units.BytesSize(float64(limit)))
	}
	return os.ReadFile(path)
}
