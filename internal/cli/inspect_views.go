// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

// The views are what inspect prints: names and shape are Docker's where Docker has the thing.

type containerState struct {
	Status     string
	Running    bool
	Paused     bool
	Restarting bool
	OOMKilled  bool
	Pid        uint32
	ExitCode   uint32
	Signal     uint32
	Error      string
	StartedAt  string
	FinishedAt string
	Health     *healthView `json:",omitempty"`
}

type containerConfig struct {
	Hostname, Domainname, User, WorkingDir, StopSignal string
	Tty, OpenStdin, StdinOnce                          bool
	Env, Cmd, Entrypoint                               []string
	Image                                              string
	Labels                                             map[string]string
	Healthcheck                                        *healthConfig `json:",omitempty"`
}

type hostConfig struct {
	AutoRemove, Privileged, ReadonlyRootfs, Init                bool
	CapAdd, CapDrop, SecurityOpt, GroupAdd, ExtraHosts, Dns     []string
	Egress                                                      []string
	Memory, MemorySwap, NanoCpus, PidsLimit, CpuShares, ShmSize int64
	CpusetCpus                                                  string
	Tmpfs, Sysctls, Annotations                                 map[string]string
	OomScoreAdj                                                 int32
	Ulimits                                                     []ulimitView
	Devices                                                     []deviceView
	RestartPolicy                                               restartView
	LogConfig                                                   logView
}

type ulimitView struct {
	Name       string
	Soft, Hard int64
}

type deviceView struct{ PathOnHost, PathInContainer, CgroupPermissions string }

type containerInspect struct {
	Id, Created, Name, Image, ImageName, Path string
	Args                                      []string
	RestartCount                              uint32
	State                                     containerState
	Config                                    containerConfig
	HostConfig                                hostConfig
	LogPath                                   string
	NetworkSettings                           networkSettings
	Machine                                   any
	SizeRw, SizeRootFs                        *int64 `json:",omitempty"`
}

func containerView(c *v1.Container) any {
	config := c.Config
	v := containerInspect{
		Id: c.Id, Created: instant(c.CreatedAt), Name: "/" + c.Name, Image: c.ImageId, ImageName: c.Image, LogPath: c.LogPath, Args: []string{},
		RestartCount: c.RestartCount,
		State: containerState{
			Status: containerStateName(c.State), Running: running(c.State) || paused(c.State), Paused: paused(c.State), Restarting: c.State == v1.ContainerState_CONTAINER_STATE_RESTARTING, OOMKilled: c.Exit.GetOomKilled(), Pid: c.Pid,
			ExitCode: c.Exit.GetCode(), Signal: c.Exit.GetSignal(), Error: firstOf(c.Error, c.Exit.GetReason()),
			StartedAt: instant(c.StartedAt), FinishedAt: instant(c.FinishedAt), Health: healthState(c.Health),
		},
		Config: containerConfig{
			Hostname: config.GetHostname(), Domainname: config.GetDomainname(), User: config.GetUser(), WorkingDir: config.GetWorkingDir(),
			StopSignal: config.GetStopSignal(), Tty: config.GetTty(), OpenStdin: config.GetStdin(), StdinOnce: config.GetStdinOnce(),
			Env: config.GetEnv(), Cmd: config.GetCommand(), Entrypoint: config.GetEntrypoint(), Image: c.Image, Labels: config.GetLabels(),
			Healthcheck: healthCheckView(config.GetHealth()),
		},
		HostConfig:      hostView(config),
		NetworkSettings: networkSettingsView(c.Networks, c.Ports),
	}
	if len(c.Args) > 0 {
		v.Path, v.Args = c.Args[0], c.Args[1:]
	}
	if c.Vm != nil {
		v.Machine = machineView(c.Vm)
	}
	return v
}

func hostView(c *v1.ContainerConfig) hostConfig {
	r := c.GetResources()
	h := hostConfig{
		AutoRemove: c.GetAutoRemove(), Privileged: c.GetPrivileged(), ReadonlyRootfs: c.GetReadOnly(), Init: c.GetInit(),
		CapAdd: c.GetCapAdd(), CapDrop: c.GetCapDrop(), SecurityOpt: c.GetSecurityOpt(), GroupAdd: c.GetGroupAdd(),
		ExtraHosts: c.GetExtraHosts(), Dns: c.GetDns(), Egress: c.GetEgress().GetRules(), Memory: r.GetMemoryBytes(), MemorySwap: r.GetMemorySwapBytes(),
		NanoCpus: r.GetNanoCpus(), PidsLimit: r.GetPidsLimit(), CpuShares: r.GetCpuShares(), ShmSize: r.GetShmBytes(),
		CpusetCpus: r.GetCpusetCpus(), Tmpfs: c.GetTmpfs(), Sysctls: c.GetSysctls(), Annotations: c.GetAnnotations(),
		OomScoreAdj: c.GetOomScoreAdj(), Ulimits: []ulimitView{}, Devices: []deviceView{},
		LogConfig:     logConfigView(c.GetLog()),
		RestartPolicy: restartView{c.GetRestart().GetName(), c.GetRestart().GetMaxRetries()},
	}
	for _, u := range c.GetUlimits() {
		h.Ulimits = append(h.Ulimits, ulimitView{u.Name, u.Soft, u.Hard})
	}
	for _, d := range c.GetDevices() {
		h.Devices = append(h.Devices, deviceView{d.HostPath, d.ContainerPath, d.Permissions})
	}
	return h
}

type imageInspect struct {
	Id               string
	RepoTags         []string
	RepoDigests      []string
	Digest, Created  string
	Os, Architecture string
	Size             int64
	RootFS           rootFSView
	Config           any
	Labels           map[string]string
}

type rootFSView struct {
	Type, Path, Digest string
	Size               int64
	Layers             []string
}

func imageView(i *v1.Image) any {
	platform := append(strings.SplitN(i.Platform, "/", 3), "", "")
	v := imageInspect{
		Id: i.Id, RepoTags: []string{}, RepoDigests: []string{}, Digest: i.Digest, Created: instant(i.CreatedAt),
		Os: platform[0], Architecture: platform[1], Size: i.SizeBytes, Labels: i.Labels,
		RootFS: rootFSView{Type: "erofs", Path: i.RootfsPath, Digest: i.RootfsDigest, Size: i.RootfsBytes, Layers: i.Layers},
	}
	for _, name := range i.Names {
		name = familiar(name)
		if strings.Contains(name, "@") {
			v.RepoDigests = append(v.RepoDigests, name)
			continue
		}
		v.RepoTags = append(v.RepoTags, name)
		repository, _ := splitTag(name)
		if i.Digest != "" {
			v.RepoDigests = append(v.RepoDigests, repository+"@"+i.Digest)
		}
	}
	if whole, ok := object(i.Config).(map[string]any); ok {
		v.Config = whole["config"]
	}
	return v
}

type machineInspect struct {
	Id, Name, State, Reason                  string
	Engine                                   string
	VCPUs, MemoryMiB, Pid                    uint32
	Kernel, KernelArgs, KernelVersion, Agent string
	Nested                                   bool
	ConsolePath                              string
	ResidentBytes                            uint64
	CreatedAt, StartedAt, StoppedAt          string
	Labels, Annotations                      map[string]string
	IPAddress                                string
	NetworkSettings                          networkSettings
	SandboxID                                string
	SocketPath, LogPath, MetricsPath         string
	Resources                                any `json:",omitempty"` // as the API has it
	Config                                   any
}

func machineView(m *v1.VM) any {
	return machineInspect{
		Id: m.Id, Name: m.Name, State: machineStateName(m.State), Reason: m.StateReason, Engine: m.Config.GetEngine(),
		VCPUs: m.Config.GetVcpuCount(), MemoryMiB: m.Config.GetMemSizeMib(), Pid: m.Pid, Kernel: m.Config.GetKernelImagePath(),
		KernelArgs: m.Config.GetKernelArgs(), KernelVersion: m.KernelVersion, Agent: m.AgentVersion, Nested: m.Config.GetNested(),
		ConsolePath: m.ConsolePath, ResidentBytes: m.ResidentBytes, CreatedAt: instant(m.CreatedAt), StartedAt: instant(m.StartedAt),
		StoppedAt: instant(m.StoppedAt), Labels: m.Config.GetLabels(), Annotations: m.Config.GetAnnotations(),
		IPAddress: m.IpAddress, NetworkSettings: networkSettingsView(m.Networks, m.PortMappings),
		SandboxID: m.SandboxId, SocketPath: m.SocketPath, LogPath: m.LogPath, MetricsPath: m.MetricsPath,
		Resources: asObject(m.Resources), Config: asObject(m.Config),
	}
}

// asObject is a message of the API in its JSON form; nil where it is absent.
func asObject(m proto.Message) any {
	if !m.ProtoReflect().IsValid() {
		return nil
	}
	raw, err := protojson.Marshal(m)
	if err != nil {
		return nil // numbers and text only: there is no way to it
	}
	return object(raw)
}

func machineStateName(s v1.VMState) string {
	return strings.ToLower(strings.TrimPrefix(s.String(), "VM_STATE_"))
}

func firstOf(words ...string) string {
	for _, w := range words {
		if w != "" {
			return w
		}
	}
	return ""
}
