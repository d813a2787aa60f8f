// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package agentv1

// Protocol is the version that Hello tells. It grows when a side must know that the other understands something new.
const Protocol = 1

// Bounds of what a request carries, in bytes. The agent refuses more.
const (
	MaxSpec       = 1 << 20 // OCI runtime spec or its process object
	MaxFile       = 1 << 20 // content of a File
	MaxFiles      = 64      // number of Files
	MaxProcesses  = 1024    // number of processes that Processes tells of
	MinEntropy    = 32
	MaxEntropy    = 512
	MachineIDSize = 32 // hex digits
	MaxInterfaces = 16 // network devices of a guest
	MaxAddresses  = 16 // of one device
)
