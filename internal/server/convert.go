// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"encoding/json"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	v1 "github.com/micropod/micropod/api/micropod/v1"
	"github.com/micropod/micropod/internal/container"
	"github.com/micropod/micropod/internal/doctor"
	"github.com/micropod/micropod/internal/events"
	"github.com/micropod/micropod/internal/image"
	"github.com/micropod/micropod/internal/machine"
)

const mib = 1 << 20

// specFromWire sets no defaults: machine.Create does, and checks the whole.
func specFromWire(r *v1.CreateVMRequest) (machine.Spec, error) {
	c := r.GetConfig()
	if n := c.GetVcpuCount(); n > 1<<16 {
		return machine.Spec{}, &requestError{"vcpu_count", fmt.Sprintf("%d is more than 65536", n)}
	}
	network, err := vmNetworkFromWire(c)
	if err != nil {
		return machine.Spec{}, err
	}
	spec := machine.Spec{
		ID:           r.GetVmId(),
		Name:         r.GetName(),
		VCPUs:        int(c.GetVcpuCount()),
		Memory:       int64(c.GetMemSizeMib()) * mib,
		Kernel:       c.GetKernelImagePath(),
		Args:         c.GetKernelArgs(),
		Labels:       c.GetLabels(),
		Annotations:  c.GetAnnotations(),
		Engine:       c.GetEngine(),
		Nested:       c.GetNested(),
		Image:        "", // FCControl's machines have none
		ScratchBytes: 0,
		Hostname:     "",
		Network:      network,
		Log:          c.GetLogPath(),
		Metrics:      c.GetMetricsPath(),
	}
	return spec, devicesOfVM(c, &spec)
}

// vmNetworkFromWire takes the network "none", alone, for loopback only.
func vmNetworkFromWire(c *v1.VMConfig) (n machine.NetworkSpec, err error) {
	if n.Joins, err = joinsFromWire(c.GetNetworks()); err != nil {
		return n, err
	}
	if len(n.Joins) == 1 && n.Joins[0].Network == container.NoNetwork {
		n.None, n.Joins = true, nil
	}
	if n.Egress, err = egressFromWire(c.GetEgress()); err != nil {
		return n, err
	}
	if c != nil {
		if n.Metadata, err = metadataFromWire(c.Mmds); err != nil {
			return n, err
		}
	}
	n.Ports, err = portsFromWire(c.GetPorts())
	return n, err
}

func vmToWire(i machine.Info) *v1.VM {
	root, drives := drivesToWire(i.Drives)
	return &v1.VM{
		Id:          i.ID,
		Name:        i.Name,
		State:       stateToWire[i.State],
		StateReason: i.Reason,
		Config: &v1.VMConfig{
			VcpuCount:       uint32(i.VCPUs),
			MemSizeMib:      uint32(i.Memory / mib),
			KernelImagePath: i.Kernel,
			KernelArgs:      i.Args,
			Labels:          i.Labels,
			Annotations:     i.Annotations,
			Engine:          i.Engine,
			Nested:          i.Nested,
			Networks:        joinsToWire(i.Network.Joins),
			Ports:           portsToWire(i.Network.Ports),

			RootfsPath:        root,
			BlockDevices:      drives,
			NetworkInterfaces: nicsToWire(i.NICs),
			RateLimiters:      limitersToWire(i.DiskLimit),
			LogPath:           i.Log,
			MetricsPath:       i.Metrics,
			Egress:            egressToWire(i.Network.Egress),
			Mmds:              metadataToWire(i.Network.Metadata),
		},
		Pid:           uint32(i.PID),
		ConsolePath:   i.ConsolePath,
		CreatedAt:     timeToWire(i.CreatedAt),
		StartedAt:     timeToWire(i.StartedAt),
		StoppedAt:     timeToWire(i.StoppedAt),
		AgentVersion:  i.AgentVersion,
		KernelVersion: i.KernelVersion,
		IpAddress:     firstAddress(i.Joined),
		Networks:      endpointsToWire(i.Joined),
		PortMappings:  publishedToWire(i.Joined),
		SocketPath:    i.Files.Socket,
		LogPath:       i.Files.Log,
		MetricsPath:   i.Files.Metrics,
		Labels:        i.Labels,
		Annotations:   i.Annotations,
	}
}

var stateToWire = [...]v1.VMState{
	machine.Unknown:  v1.VMState_VM_STATE_UNSPECIFIED,
	machine.Creating: v1.VMState_VM_STATE_CREATING,
	machine.Starting: v1.VMState_VM_STATE_STARTING,
	machine.Running:  v1.VMState_VM_STATE_RUNNING,
	machine.Pausing:  v1.VMState_VM_STATE_PAUSING,
	machine.Paused:   v1.VMState_VM_STATE_PAUSED,
	machine.Stopping: v1.VMState_VM_STATE_STOPPING,
	machine.Stopped:  v1.VMState_VM_STATE_STOPPED,
	machine.Error:    v1.VMState_VM_STATE_ERROR,

	machine.Suspending: v1.VMState_VM_STATE_SUSPENDING,
	machine.Suspended:  v1.VMState_VM_STATE_SUSPENDED,
}

// timeToWire leaves a time that is not set out of the message.
func timeToWire(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// timeFromWire takes an absent time as the zero one.
func timeFromWire(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}

func authFromWire(a *v1.RegistryAuth) *image.Auth {
	if a == nil {
		return nil
	}
	return &image.Auth{
		Username:      a.GetUsername(),
		Password:      a.GetPassword(),
		IdentityToken: a.GetIdentityToken(),
		RegistryToken: a.GetRegistryToken(),
	}
}

func progressToWire(e image.Event) *v1.Progress {
	status := string(e.State)
	if e.Message != "" {
		status += ": " + e.Message
	}
	return &v1.Progress{Id: e.ID, Status: status, Current: e.Done, Total: e.Total}
}

// imageToWire fills the configuration only where it is asked for: it may be large.
func imageToWire(i *image.Image, whole bool) (*v1.Image, error) {
	wire := &v1.Image{
		Id:           string(i.ID),
		Digest:       string(i.Digest),
		Names:        i.Names,
		SizeBytes:    i.Size,
		CreatedAt:    timeToWire(i.Created),
		Platform:     platform(i),
		RootfsPath:   i.RootFS,
		RootfsDigest: string(i.RootFSDigest),
		RootfsBytes:  i.RootFSSize,
		Labels:       i.Config.Config.Labels,
	}
	for _, l := range i.Layers {
		wire.Layers = append(wire.Layers, string(l.Digest))
	}
	if whole {
		config, err := json.Marshal(i.Config)
		if err != nil {
			return nil, fmt.Errorf("writing the configuration of image %s: %w", i.ID, err)
		}
		wire.Config = config
	}
	return wire, nil
}

func platform(i *image.Image) string {
	p := i.Config.OS + "/" + i.Config.Architecture
	if i.Config.Variant != "" {
		p += "/" + i.Config.Variant
	}
	return p
}

func eventToWire(e events.Event) *v1.Event {
	return &v1.Event{
		Time:       timeToWire(e.Time),
		Type:       e.Type,
		Action:     e.Action,
		Id:         e.ID,
		Name:       e.Name,
		Attributes: e.Attributes,
	}
}

func checkToWire(c doctor.Check) *v1.Check {
	return &v1.Check{Name: c.Name, Status: statusToWire[c.Status], Finding: c.Finding, Mend: c.Mend}
}

var statusToWire = [...]v1.CheckStatus{
	doctor.OK:      v1.CheckStatus_CHECK_STATUS_OK,
	doctor.Warning: v1.CheckStatus_CHECK_STATUS_WARNING,
	doctor.Failed:  v1.CheckStatus_CHECK_STATUS_FAILED,
}
