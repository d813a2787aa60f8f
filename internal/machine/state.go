// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"fmt"
	"slices"
)

// State is where a machine is in its life.
//
//	       (record made)
//	             │
//	        ┌────▼─────┐ fails: record and all removed
//	        │ Creating ├──────────────────────────────▶ (gone)
//	        └────┬─────┘                                  ▲
//	             │ folder and disk made                   │ Delete
//	        ┌────▼─────┐                                  │
//	┌──────▶│ Stopped  ├──────────────────────────────────┤
//	│       └──┬────▲──┘                                  │
//	│    Start │    │ cancelled                           │
//	│       ┌──▼────┴──┐ boot failed  ┌───────┐           │
//	│       │ Starting ├─────────────▶│ Error ├───────────┤
//	│       └────┬─────┘◀─────────────┤       │           │
//	│            │ agent   Start      └───▲───┘           │
//	│            │ identified             │ VMM died,     │
//	│       ┌────▼─────┐                  │ guest crashed │
//	│◀──────┤ Running  ├─────────────────▶│ (also from    │
//	│ guest └┬──▲───┬──┘                  │ Pausing,      │
//	│ off    │  │   │ Stop                │ Paused)       │
//	│  Pause │  │   └─────────┐           │               │
//	│  ┌─────▼──┴┐            │           │               │
//	│  │ Pausing │ Resume     │           │               │
//	│  └─────┬───┘ (or Pause  │           │               │
//	│        │      failed)   │           │               │
//	│  ┌─────▼──┐  Stop  ┌────▼─────┐     │   ┌─────────┐ │
//	│  │ Paused ├───────▶│ Stopping ├─────┘   │ Unknown ├─┘
//	│  └────────┘        └────┬─────┘         └─────────┘ Delete by force;
//	└─────────────────────────┘                           record unreadable, or
//	              VMM gone                                its VMM could not be judged
//
//	┌─────────┐ all saved  ┌────────────┐ VMM gone  ┌───────────┐ Wake, Start ┌──────────┐
//	│ Pausing ├───────────▶│ Suspending ├──────────▶│ Suspended ├────────────▶│ Starting ├──▶ Running
//	└─────────┘            └──────┬─────┘           └─┬───────▲─┘             └────┬─────┘
//	(of Suspend)             Stop │          by force │       │ the guest did      │ it ran, and
//	                      Stopping◀┘          Stopped◀┘       └─ not run yet ──────┴─ is gone ──▶ Error
//
// Delete by force goes through Stopping. Starting becomes Unknown when a boot could not be
// taken back; a later start of the daemon may make that Stopped.
type State int

// What holds in each state, and what is owed.
const (
	// Unknown: the record cannot be read, or adoption could not tell. A VMM, files and
	// a uid may be there. Owed: Delete by force.
	Unknown State = iota
	// Creating: record there, folder and disk perhaps. A daemon that finds it at start removes all.
	Creating
	// Starting: as Stopped, and perhaps a VMM. A daemon that finds it at start ends the VMM.
	Starting
	// Running: VMM runs and is recorded, agent identified.
	Running
	// Pausing: as Running, vCPUs stopping.
	Pausing
	// Paused: VMM there, vCPUs stopped.
	Paused
	// Stopping: VMM ending. It does not go back to Running.
	Stopping
	// Stopped: record, folder and disk, no VMM. The uid stays the machine's.
	Stopped
	// Error: as Stopped, and Reason tells what went wrong.
	Error
	// Suspending: memory and devices are saved, whole and synced; the VMM, its vCPUs stopped, ending.
	Suspending
	// Suspended: as Stopped, and memory and devices on disk, from which the next start goes on; the place in the networks
	// stays. Reason tells why it could not be woken, if that was tried.
	Suspended
)

var names = [...]string{"unknown", "creating", "starting", "running", "pausing", "paused", "stopping", "stopped", "error", "suspending", "suspended"}

func (s State) String() string {
	if s < 0 || int(s) >= len(names) {
		return fmt.Sprintf("state(%d)", int(s))
	}
	return names[s]
}

// MarshalText writes the name: records stay readable when states are added.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads a name. One that it does not know is an error, not Unknown:
// the record was written by a newer daemon and must be kept as it is.
func (s *State) UnmarshalText(text []byte) error {
	i := slices.Index(names[:], string(text))
	if i < 0 {
		return fmt.Errorf("unknown state %q", text)
	}
	*s = State(i)
	return nil
}

// legal is the table: from each state, the states that may follow.
var legal = [...][]State{
	Unknown:  {Stopped},
	Creating: {Stopped},
	Starting: {Running, Stopped, Error, Unknown, Suspended},
	Running:  {Pausing, Stopping, Stopped, Error},
	Pausing:  {Paused, Running, Stopping, Stopped, Error, Suspending},
	Paused:   {Running, Stopping, Stopped, Error},
	Stopping: {Stopped, Error},
	Stopped:  {Starting},
	Error:    {Starting},

	Suspending: {Suspended, Stopping},
	Suspended:  {Starting, Stopped},
}

// mayBecome says whether the table allows the change.
func (s State) mayBecome(to State) bool { return slices.Contains(legal[s], to) }

// connected says whether the guest channel of a machine in this state is kept for callers.
func (s State) connected() bool {
	return s == Running || s == Pausing || s == Paused || s == Stopping
}

// HasVMM says whether a VMM process may belong to a machine in this state.
func (s State) HasVMM() bool {
	switch s {
	case Stopped, Error, Creating, Suspended:
		return false
	default:
		return true
	}
}
