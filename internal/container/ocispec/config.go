// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package ocispec

// Config is what a user asks of the inside of a container. Empty fields take
// the image's values, then Docker's defaults.
type Config struct {
	Command       []string // replaces the image's Cmd
	EntrypointSet bool
	Entrypoint    []string // replaces the image's Entrypoint when EntrypointSet; empty then: none
	Env           []string // NAME=value; a bare NAME takes the image's variable away
	User          string   // "", "name", "uid", "user:group"
	GroupAdd      []string
	WorkingDir    string
	Hostname      string // empty: the first 12 digits of the id
	Domainname    string
	TTY           bool
	Stdin         bool
	StopSignal    string // empty: the image's, then SIGTERM

	Privileged  bool
	CapAdd      []string
	CapDrop     []string
	SecurityOpt []string
	ReadOnly    bool
	Init        bool

	Tmpfs       map[string]string // path in the container -> mount options
	Devices     []Device
	Sysctls     map[string]string
	Ulimits     []Ulimit
	Resources   Resources
	OOMScoreAdj int32

	ExtraHosts []string // name:address
	DNS        []string
	DNSSearch  []string
	DNSOptions []string

	Annotations map[string]string
}

// Device is a device node of the guest given to a container.
type Device struct {
	GuestPath     string // such as /dev/fuse; a folder gives every device below it
	ContainerPath string // empty: GuestPath
	Permissions   string // subset of "rwm"; empty: all
}

// Ulimit is one resource limit; -1 means unlimited.
type Ulimit struct {
	Name       string // without RLIMIT_, such as "nofile"
	Soft, Hard int64
}

// Resources bounds what a container uses. Zero values mean the default.
type Resources struct {
	MemoryBytes     int64
	MemorySwapBytes int64 // memory and swap together, as Docker counts; -1: unlimited
	NanoCPUs        int64 // billionths of a CPU
	PidsLimit       int64 // -1: unlimited
	CPUShares       int64
	CpusetCPUs      string
	ShmBytes        int64
	ScratchBytes    int64 // size of the disk for changes; the machine's affair, not the specification's

	MemoryReservationBytes int64 // soft limit; 0: none
}
