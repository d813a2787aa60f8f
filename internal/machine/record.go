// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"crypto/rand"
	"encoding/hex"
	"time"

	"github.com/micropod/micropod/internal/vmm"
)

// bucket and recordVersion name the records in the state database.
const (
	bucket        = "machines"
	recordVersion = 1
)

// record is what is kept of a machine. Its JSON form is the database's: fields are added, never
// renamed or given another meaning under the same recordVersion.
type record struct {
	Spec Spec

	State  State
	Reason string
	UID    int // of the VMM, also gid; 0: the daemon's own

	// VMM is there from the moment the VMM runs until its end was seen.
	VMM *vmm.Record `json:",omitempty"`

	// Body is the name under which the VMM's folder and cgroup are, where that is not the machine's id: it was a
	// machine of the pool's.
	Body string

	Template string // id of that which the VMM was restored from; empty: it booted

	Snapshot string // likewise, of a user's
	Restore  string // id of the snapshot that the next start restores; empty: none

	// Suspended is what the next start goes on from, in Suspending, Suspended and Starting from there; nil else.
	Suspended *suspension `json:",omitempty"`
	// Awoken is the folder, beside the disk, of the saved state that the VMM was restored from; empty: of none.
	Awoken string `json:",omitempty"`

	MachineID   string // 32 hex digits, the guest's /etc/machine-id
	ConsolePath string

	CreatedAt, StartedAt, StoppedAt time.Time

	AgentVersion, KernelVersion string
}

func newMachineID() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return hex.EncodeToString(b)
}

func (r *record) info() Info {
	i := Info{
		Spec:          r.Spec,
		State:         r.State,
		Reason:        r.Reason,
		ConsolePath:   r.ConsolePath,
		CreatedAt:     r.CreatedAt,
		StartedAt:     r.StartedAt,
		StoppedAt:     r.StoppedAt,
		AgentVersion:  r.AgentVersion,
		KernelVersion: r.KernelVersion,
		Template:      r.Template,
	}
	if r.VMM != nil {
		i.PID = r.VMM.PID
	}
	if r.Suspended != nil {
		i.SuspendedAt = r.Suspended.At
	}
	return i
}
