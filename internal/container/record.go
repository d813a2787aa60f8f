// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package container

import (
	"cmp"
	"time"

	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	bucket        = "containers"
	recordVersion = 1
)

// record is what is kept of a container. Its JSON form is the database's: fields are
// added, never renamed or given another meaning under the same recordVersion.
type record struct {
	ID        string
	Config    Config
	ImageID   string
	Image     imagespec.ImageConfig // the image may be gone when the container starts again
	State     State
	MachineID string
	PID       uint32
	// GuestID is the id that the agent knows it by, when that is another's of which it was cloned.
	GuestID string `json:",omitempty"`

	Created, Started, Finished time.Time

	// Stopped: a user ended the last run, or is about to.
	Stopped      bool          `json:",omitempty"`
	RestartCount int           `json:",omitempty"`
	Backoff      time.Duration `json:",omitempty"` // between the last end and the next start

	Health HealthState // stored when its status changes; the log is ahead in memory

	Exit  *Exit `json:",omitempty"`
	Args  []string
	Error string
}

func (r *record) guestID() string { return cmp.Or(r.GuestID, r.ID) }

func (r *record) info(logPath string) Info {
	return Info{
		ID:        r.ID,
		Name:      r.Config.Name,
		Config:    r.Config,
		ImageID:   r.ImageID,
		State:     r.State,
		MachineID: r.MachineID,
		PID:       r.PID,
		Created:   r.Created,
		Started:   r.Started,
		Finished:  r.Finished,
		Exit:      r.Exit,
		Args:      r.Args,
		LogPath:   logPath,
		Error:     r.Error,

		RestartCount: r.RestartCount,
		Health:       r.Health,
	}
}
