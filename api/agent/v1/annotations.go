// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package agentv1

// Annotations of the OCI runtime specification in StartContainerRequest that
// carry what the specification itself cannot say. The daemon writes them, the
// agent carries them out; any other annotation is the user's and has no effect.
const (
	// AnnotationSeccompBPF is the compiled seccomp filter: standard base64 of an
	// array of struct sock_filter (8 bytes each, little-endian: code uint16, jt
	// uint8, jf uint8, k uint32), at most 4096 of them. It is installed as the last step
	// before execve, in the first process and in each process of Exec.
	// Absent: no filter. linux.seccomp is never set.
	AnnotationSeccompBPF = "io.micropod.seccomp.bpf"

	// AnnotationDevices is a JSON array of GuestDevice: device nodes of the guest
	// to be given to the container, beyond OCI's default ones. Only the guest knows
	// their numbers, so linux.devices is never set.
	AnnotationDevices = "io.micropod.devices"
)

// GuestDevice is an element of AnnotationDevices.
type GuestDevice struct {
	// Source is a device node of the guest, or a folder of the guest's /dev: then every
	// device node below it is meant and Path is the folder they appear in.
	Source string `json:"source"`
	// Path is where the node appears in the container.
	Path string `json:"path"`
	// Permissions is a subset of "rwm" for the device cgroup.
	Permissions string `json:"permissions"`
}
