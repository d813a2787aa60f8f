// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package container

import (
	"fmt"
	"slices"
)

// State is where a container is in its life.
//
//	 (record made)
//	      │
//	┌─────▼────┐ fails: all removed
//	│ Creating ├────────────────────▶ (gone)
//	└─────┬────┘                        ▲ Remove; from Starting, Running
//	      │ machine made                │ and Stopping by force
//	┌─────▼────┐                        │
//	│ Created  ├────────────────────────┤
//	└─────┬────┘                        │
//	      │ Start                       │
//	┌─────▼────┐ fails      ┌───────┐   │
//	│ Starting ├───────────▶│ Error ├───┤
//	└─────┬──▲─┘            └───┬───┘   │
//	      │  └──── Start ◀──────┘       │
//	      │  ▲                          │
//	      │  └──── Start ◀──────┐       │
//	┌─────▼────┐ ends       ┌───┴────┐  │
//	│ Running  ├───────────▶│ Exited ├──┘
//	└─────┬────┘            └───▲────┘
//	      │ Stop                │
//	┌─────▼────┐ ends           │
//	│ Stopping ├────────────────┘
//	└──────────┘
//
// Where the restart policy wants it, what would be Exited or Error is Restarting instead: from there
// Starting when the back-off is over, Exited by Stop.
//
// Dead is what has a record that cannot be read: Remove by force alone leads out of it.
//
// A Running one is shown as Paused or Suspended while its machine is.
type State int

// What holds in each state, and what is owed.
const (
	// Creating: record there, folder and machine perhaps. A daemon that finds it at start removes all.
	Creating State = iota
	// Created: record, folder, a stopped machine.
	Created
	// Starting: as Created, and perhaps a running machine. A daemon that finds it at start ends that.
	Starting
	// Running: machine runs, first process was started; a run with a supervisor.
	Running
	// Stopping: as Running; a signal was sent.
	Stopping
	// Exited: as Created, exit recorded; the machine may still be stopping.
	Exited
	// Error: as Created; Error tells why it could not be started.
	Error
	// Restarting: as Exited or Error; it is started again when its back-off is over.
	Restarting
	// Paused: as Running, its machine being paused. It is shown, never recorded: the machine's state is
	// the only one.
	Paused
	// Dead: its record cannot be read; machine and folder perhaps. It can be removed by force.
	Dead
	// Suspended: as Running, its machine being saved to disk and freed. It is shown, never recorded, as Paused.
	Suspended
)

var stateNames = [...]string{"creating", "created", "starting", "running", "stopping", "exited", "error", "restarting", "paused", "dead", "suspended"}

func (s State) String() string {
	if s < 0 || int(s) >= len(stateNames) {
		return fmt.Sprintf("state(%d)", int(s))
	}
	return stateNames[s]
}

// MarshalText writes the name.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads a name; an unknown one was written by a newer daemon and is an error.
func (s *State) UnmarshalText(text []byte) error {
	i := slices.Index(stateNames[:], string(text))
	if i < 0 {
		return fmt.Errorf("unknown state %q", text)
	}
	*s = State(i)
	return nil
}

// legal is the table: from each state, the states that may follow.
var legal = [...][]State{
	Creating: {Created, Running},
	Created:  {Starting},
	Starting: {Running, Error, Restarting},
	Running:  {Stopping, Exited, Restarting},
	Stopping: {Exited},
	Exited:   {Starting},
	Error:    {Starting},

	Restarting: {Starting, Exited},
	Dead:       {},
	Suspended:  {},
}

func (s State) mayBecome(to State) bool { return slices.Contains(legal[s], to) }
