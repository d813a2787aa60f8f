// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Package ocispec turns an image's configuration and a user's request into the
// OCI runtime specification of a container, as Docker does, and into what goes
// to the agent beside it: files under /etc, the user to look up, devices of the guest.
//
// Build is called when a container is created, to refuse early what cannot
// work, and again at each start. Process makes the specification of a further
// process. All is pure computation on its arguments: nothing is read from this
// host, and functions may be called concurrently.
//
// internal/container is the caller; nobody else should need this package.
package ocispec

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"

	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	agentv1 "github.com/micropod/micropod/api/agent/v1"
)

// maxSpecBytes is the bound the agent sets on a specification (api/agent/v1).
const maxSpecBytes = 1 << 20

// Input is what Build works from. It is not changed.
type Input struct {
	ID     string // 64 hex digits
	Image  imagespec.ImageConfig
	Config Config
	// Network is the machine's, whose the container's is; nil: loopback only, or not known yet.
	Network *Network
	// Kernel is the guest's kernel version, such as "6.1"; seccomp rules may depend on it. Empty: "6.1".
	Kernel string
	// Rows and Cols are the terminal's first size; 0: not known.
	Rows, Cols uint32
}

// Network is what a container is told of its machine's networks.
type Network struct {
	Addresses   []netip.Addr // its own, for /etc/hosts
	Resolvers   []netip.Addr // name servers, which know those that the user asked for
	Search      []string     // the host's search domains
	HostGateway netip.Addr   // the host's address as seen from within; invalid: none
}

// Bundle is a container's specification and what goes with it.
type Bundle struct {
	Spec       *specs.Spec
	JSON       []byte // Spec, at most 1 MiB
	Files      []File
	User       string // resolved by the agent in the container's own files
	GroupAdd   []string
	Init       bool
	StopSignal unix.Signal
	Warnings   []string // what is carried out otherwise than asked; for people
}

// File is bound over a path of the container.
type File struct {
	Path    string
	Mode    uint32
	Content []byte
}

// Build makes the specification. Errors are *InvalidError when the request is at fault.
func Build(in Input) (*Bundle, error) {
	b := &Bundle{Init: in.Config.Init}
	spec, err := newSpec(in)
	if err != nil {
		return nil, err
	}
	b.Spec = spec
	steps := []func(*Bundle, Input) error{
		setUser, setCapabilities, setMounts, setDevices, setSysctls,
		setRlimits, setResources, setStopSignal, setSecurity, setFiles,
	}
	for _, step := range steps {
		if err := step(b, in); err != nil {
			return nil, err
		}
	}
	if b.JSON, err = json.Marshal(b.Spec); err != nil {
		return nil, fmt.Errorf("encoding the runtime specification: %w", err)
	}
	if len(b.JSON) > maxSpecBytes {
		return nil, invalid("container configuration", "",
			fmt.Sprintf("its runtime specification takes %d bytes, at most %d are possible", len(b.JSON), maxSpecBytes),
			"shorten the environment, arguments or annotations")
	}
	return b, nil
}

// newSpec is the part every container has.
func newSpec(in Input) (*specs.Spec, error) {
	host, err := hostname(in)
	if err != nil {
		return nil, err
	}
	process, err := newProcess(in, host)
	if err != nil {
		return nil, err
	}
	annotations, err := userAnnotations(in.Config.Annotations)
	if err != nil {
		return nil, err
	}
	return &specs.Spec{
		Version:     specs.Version,
		Process:     process,
		Root:        &specs.Root{Path: "rootfs", Readonly: in.Config.ReadOnly},
		Hostname:    host,
		Domainname:  in.Config.Domainname,
		Annotations: annotations,
		Linux: &specs.Linux{
			CgroupsPath: "/" + in.ID,
			Resources:   &specs.LinuxResources{},
			// No network namespace: the machine's own is the container's.
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace},
				{Type: specs.MountNamespace},
				{Type: specs.IPCNamespace},
				{Type: specs.UTSNamespace},
				{Type: specs.CgroupNamespace},
			},
		},
	}, nil
}

// userAnnotations copies the user's annotations; those that speak to the agent are the daemon's alone.
func userAnnotations(from map[string]string) (map[string]string, error) {
	for _, name := range []string{agentv1.AnnotationSeccompBPF, agentv1.AnnotationDevices} {
		if _, taken := from[name]; taken {
			return nil, invalid("--annotation", name, "the daemon sets this one itself", "use --security-opt seccomp=... or --device")
		}
	}
	if from == nil {
		return map[string]string{}, nil
	}
	return maps.Clone(from), nil
}
