// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"fmt"
	"math"
	"time"

	v1 "github.com/micropod/micropod/api/micropod/v1"
	"github.com/micropod/micropod/internal/container"
	"github.com/micropod/micropod/internal/container/logfile"
	"github.com/micropod/micropod/internal/container/ocispec"
)

// configFromWire sets no defaults: container.Create does, and checks the whole.
func configFromWire(c *v1.ContainerConfig) (container.Config, error) {
	if c == nil {
		return container.Config{}, &requestError{"config", "it is required"}
	}
	vm, err := vmFromWire(c.Vm)
	if err != nil {
		return container.Config{}, err
	}
	network, err := containerNetworkFromWire(c)
	if err != nil {
		return container.Config{}, err
	}
	return container.Config{
		Config: ocispec.Config{
			Command:       c.Command,
			EntrypointSet: c.EntrypointSet,
			Entrypoint:    c.Entrypoint,
			Env:           c.Env,
			User:          c.User,
			GroupAdd:      c.GroupAdd,
			WorkingDir:    c.WorkingDir,
			Hostname:      c.Hostname,
			Domainname:    c.Domainname,
			TTY:           c.Tty,
			Stdin:         c.Stdin,
			StopSignal:    c.StopSignal,
			Privileged:    c.Privileged,
			CapAdd:        c.CapAdd,
			CapDrop:       c.CapDrop,
			SecurityOpt:   c.SecurityOpt,
			ReadOnly:      c.ReadOnly,
			Init:          c.Init,
			Tmpfs:         c.Tmpfs,
			Devices:       devicesFromWire(c.Devices),
			Sysctls:       c.Sysctls,
			Ulimits:       ulimitsFromWire(c.Ulimits),
			Resources:     resourcesFromWire(c.Resources),
			OOMScoreAdj:   c.OomScoreAdj,
			ExtraHosts:    c.ExtraHosts,
			DNS:           c.Dns,
			DNSSearch:     c.DnsSearch,
			DNSOptions:    c.DnsOptions,
			Annotations:   c.Annotations,
		},
		Image:      c.Image,
		Name:       c.Name,
		Platform:   c.Platform,
		Pull:       container.Pull(c.Pull),
		Labels:     c.Labels,
		StdinOnce:  c.StdinOnce,
		StopWait:   time.Duration(c.StopTimeoutSeconds) * time.Second,
		AutoRemove: c.AutoRemove,
		Restart:    restartFromWire(c.Restart),
		Health:     healthFromWire(c.Health),
		Log:        container.Logging{Driver: c.Log.GetDriver(), MaxBytes: c.Log.GetMaxBytes(), MaxFiles: int(c.Log.GetMaxFiles())},
		VM:         vm,
		Network:    network,

		IdleTimeout: time.Duration(c.IdleTimeoutNanos),
	}, nil
}

func configToWire(c container.Config) *v1.ContainerConfig {
	return &v1.ContainerConfig{
		Image:              c.Image,
		Name:               c.Name,
		Command:            c.Command,
		EntrypointSet:      c.EntrypointSet,
		Entrypoint:         c.Entrypoint,
		Env:                c.Env,
		User:               c.User,
		GroupAdd:           c.GroupAdd,
		WorkingDir:         c.WorkingDir,
		Hostname:           c.Hostname,
		Domainname:         c.Domainname,
		Tty:                c.TTY,
		Stdin:              c.Stdin,
		StdinOnce:          c.StdinOnce,
		Labels:             c.Labels,
		StopSignal:         c.StopSignal,
		StopTimeoutSeconds: uint32(c.StopWait / time.Second),
		Privileged:         c.Privileged,
		CapAdd:             c.CapAdd,
		CapDrop:            c.CapDrop,
		ReadOnly:           c.ReadOnly,
		Tmpfs:              c.Tmpfs,
		Devices:            devicesToWire(c.Devices),
		Sysctls:            c.Sysctls,
		Ulimits:            ulimitsToWire(c.Ulimits),
		Init:               c.Init,
		Resources:          resourcesToWire(c.Resources),
		SecurityOpt:        c.SecurityOpt,
		AutoRemove:         c.AutoRemove,
		ExtraHosts:         c.ExtraHosts,
		Dns:                c.DNS,
		DnsSearch:          c.DNSSearch,
		DnsOptions:         c.DNSOptions,
		Platform:           c.Platform,
		OomScoreAdj:        c.OOMScoreAdj,
		Vm:                 vmConfigToWire(c.VM),
		Pull:               string(c.Pull),
		Annotations:        c.Annotations,
		Restart:            restartToWire(c.Restart),
		Health:             healthCheckToWire(c.Health),
		Log:                &v1.LogConfig{Driver: c.Log.Driver, MaxBytes: c.Log.MaxBytes, MaxFiles: uint32(c.Log.MaxFiles)},
		Networks:           joinsToWire(c.Network.Joins),
		Ports:              portsToWire(c.Network.Ports),
		PublishAll:         c.Network.PublishAll,
		Expose:             c.Network.Expose,
		Egress:             egressToWire(c.Network.Egress),
		Mmds:               metadataToWire(c.Network.Metadata),
		IdleTimeoutNanos:   c.IdleTimeout.Nanoseconds(),
	}
}

func restartFromWire(r *v1.RestartPolicy) container.Restart {
	return container.Restart{Policy: container.RestartPolicy(r.GetName()), MaxRetries: int(r.GetMaxRetries())}
}

func restartToWire(r container.Restart) *v1.RestartPolicy {
	return &v1.RestartPolicy{Name: string(r.Policy), MaxRetries: uint32(r.MaxRetries)}
}

func containerNetworkFromWire(c *v1.ContainerConfig) (n container.Network, err error) {
	if n.Joins, err = joinsFromWire(c.Networks); err != nil {
		return n, err
	}
	if n.Egress, err = egressFromWire(c.Egress); err != nil {
		return n, err
	}
	if n.Metadata, err = metadataFromWire(c.Mmds); err != nil {
		return n, err
	}
	n.Ports, err = portsFromWire(c.Ports)
	n.PublishAll, n.Expose = c.PublishAll, c.Expose
	return n, err
}

func vmFromWire(c *v1.VMConfig) (container.VM, error) {
	if len(c.GetNetworks())+len(c.GetPorts())+len(c.GetEgress().GetRules())+len(c.GetMmds()) > 0 {
		return container.VM{}, &requestError{"vm", "networks, ports, egress rules and metadata are the container's, not its machine's"}
	}
	if n := c.GetVcpuCount(); n > 1<<16 {
		return container.VM{}, &requestError{"vcpu_count", fmt.Sprintf("%d is more than 65536", n)}
	}
	if c.GetRootfsPath() != "" || c.GetLogPath() != "" || c.GetMetricsPath() != "" || len(c.GetBlockDevices())+len(c.GetNetworkInterfaces()) > 0 {
		return container.VM{}, &requestError{"vm", "disks, network interfaces and files of the user's own are for machines without containers: FCControl.CreateVM"}
	}
	limit, err := limitFromWire("rate_limiters.disk", c.GetRateLimiters().GetDisk())
	if err != nil {
		return container.VM{}, err
	}
	return container.VM{
		VCPUs:       int(c.GetVcpuCount()),
		MemoryBytes: int64(c.GetMemSizeMib()) * mib,
		Kernel:      c.GetKernelImagePath(),
		KernelArgs:  c.GetKernelArgs(),
		Labels:      c.GetLabels(),
		Annotations: c.GetAnnotations(),
		Engine:      c.GetEngine(),
		Nested:      c.GetNested(),
		DiskLimit:   limit,
	}, nil
}

func vmConfigToWire(c container.VM) *v1.VMConfig {
	return &v1.VMConfig{
		VcpuCount:       uint32(c.VCPUs),
		MemSizeMib:      uint32(c.MemoryBytes / mib),
		KernelImagePath: c.Kernel,
		KernelArgs:      c.KernelArgs,
		Labels:          c.Labels,
		Annotations:     c.Annotations,
		Engine:          c.Engine,
		Nested:          c.Nested,
		RateLimiters:    limitersToWire(c.DiskLimit),
	}
}

func devicesFromWire(devices []*v1.Device) (out []ocispec.Device) {
	for _, d := range devices {
		out = append(out, ocispec.Device{GuestPath: d.GetHostPath(), ContainerPath: d.GetContainerPath(), Permissions: d.GetPermissions()})
	}
	return out
}

func devicesToWire(devices []ocispec.Device) (out []*v1.Device) {
	for _, d := range devices {
		out = append(out, &v1.Device{HostPath: d.GuestPath, ContainerPath: d.ContainerPath, Permissions: d.Permissions})
	}
	return out
}

func ulimitsFromWire(limits []*v1.Ulimit) (out []ocispec.Ulimit) {
	for _, l := range limits {
		out = append(out, ocispec.Ulimit{Name: l.GetName(), Soft: l.GetSoft(), Hard: l.GetHard()})
	}
	return out
}

func ulimitsToWire(limits []ocispec.Ulimit) (out []*v1.Ulimit) {
	for _, l := range limits {
		out = append(out, &v1.Ulimit{Name: l.Name, Soft: l.Soft, Hard: l.Hard})
	}
	return out
}

func resourcesFromWire(r *v1.Resources) ocispec.Resources {
	return ocispec.Resources{
		MemoryBytes:     r.GetMemoryBytes(),
		MemorySwapBytes: r.GetMemorySwapBytes(),
		NanoCPUs:        r.GetNanoCpus(),
		PidsLimit:       r.GetPidsLimit(),
		CPUShares:       r.GetCpuShares(),
		CpusetCPUs:      r.GetCpusetCpus(),
		ShmBytes:        r.GetShmBytes(),
		ScratchBytes:    r.GetScratchBytes(),

		MemoryReservationBytes: r.GetMemoryReservationBytes(),
	}
}

func resourcesToWire(r ocispec.Resources) *v1.Resources {
	return &v1.Resources{
		MemoryBytes:     r.MemoryBytes,
		MemorySwapBytes: r.MemorySwapBytes,
		NanoCpus:        r.NanoCPUs,
		PidsLimit:       r.PidsLimit,
		CpuShares:       r.CPUShares,
		CpusetCpus:      r.CpusetCPUs,
		ShmBytes:        r.ShmBytes,
		ScratchBytes:    r.ScratchBytes,

		MemoryReservationBytes: r.MemoryReservationBytes,
	}
}

// containerToWire leaves the machine out: Get adds it.
func containerToWire(i container.Info) *v1.Container {
	return &v1.Container{
		Id:         i.ID,
		Name:       i.Name,
		Image:      i.Config.Image,
		ImageId:    i.ImageID,
		Config:     configToWire(i.Config),
		State:      containerStateToWire[i.State],
		VmId:       i.MachineID,
		Pid:        i.PID,
		CreatedAt:  timeToWire(i.Created),
		StartedAt:  timeToWire(i.Started),
		FinishedAt: timeToWire(i.Finished),
		Exit:       exitToWire(i.Exit),
		Args:       i.Args,
		LogPath:    i.LogPath,
		Error:      i.Error,

		RestartCount: uint32(i.RestartCount),
		SuspendedAt:  timeToWire(i.Suspended),
		Health:       healthToWire(i.Health),
	}
}

var containerStateToWire = [...]v1.ContainerState{
	container.Creating: v1.ContainerState_CONTAINER_STATE_UNSPECIFIED, // nobody sees one
	container.Created:  v1.ContainerState_CONTAINER_STATE_CREATED,
	container.Starting: v1.ContainerState_CONTAINER_STATE_STARTING,
	container.Running:  v1.ContainerState_CONTAINER_STATE_RUNNING,
	container.Stopping: v1.ContainerState_CONTAINER_STATE_STOPPING,
	container.Exited:   v1.ContainerState_CONTAINER_STATE_EXITED,
	container.Error:    v1.ContainerState_CONTAINER_STATE_ERROR,

	container.Restarting: v1.ContainerState_CONTAINER_STATE_RESTARTING,
	container.Paused:     v1.ContainerState_CONTAINER_STATE_PAUSED,
	container.Dead:       v1.ContainerState_CONTAINER_STATE_DEAD,
	container.Suspended:  v1.ContainerState_CONTAINER_STATE_SUSPENDED,
}

func exitToWire(e *container.Exit) *v1.Exit {
	if e == nil {
		return nil
	}
	return &v1.Exit{Code: e.Code, Signal: e.Signal, OomKilled: e.OOMKilled, At: timeToWire(e.At), Reason: e.Reason}
}

func execFromWire(r *v1.ExecRequest) container.ExecConfig {
	return container.ExecConfig{
		Command:    r.Command,
		Env:        r.Env,
		User:       r.User,
		WorkingDir: r.WorkingDir,
		TTY:        r.Tty,
		Stdin:      r.Stdin,
		Privileged: r.Privileged,
		Detach:     r.Detach,
		Rows:       r.Window.GetRows(),
		Cols:       r.Window.GetCols(),
	}
}

func attachFromWire(o *v1.AttachOpen) container.AttachOptions {
	return container.AttachOptions{
		Exec:         o.ExecId,
		Stdin:        o.Stdin,
		Stdout:       o.Stdout,
		Stderr:       o.Stderr,
		StdoutOffset: o.StdoutOffset,
		StderrOffset: o.StderrOffset,
	}
}

func logsFromWire(r *v1.LogsRequest) logfile.ReadOptions {
	tail := -1
	if r.Tail >= 0 {
		tail = int(min(r.Tail, math.MaxInt32))
	}
	return logfile.ReadOptions{
		Tail:   tail,
		Since:  timeFromWire(r.Since),
		Until:  timeFromWire(r.Until),
		Stdout: r.Stdout,
		Stderr: r.Stderr,
		Follow: r.Follow,
	}
}
