// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package container

import (
	"time"

	"github.com/micropod/micropod/internal/container/ocispec"
	"github.com/micropod/micropod/internal/image"
	"github.com/micropod/micropod/internal/machine"
)

// Config is what a user asks for. Empty fields take the image's values, then defaults.
type Config struct {
	ocispec.Config

	Image      string // reference or id
	Name       string // empty: chosen
	Platform   string
	Pull       Pull
	Labels     map[string]string
	StdinOnce  bool          // input ends with the first client that gives it
	StopWait   time.Duration // before SIGKILL; 0: 10 s
	AutoRemove bool
	// IdleTimeout is after how long an idle container is suspended; 0: never. See idle.go.
	IdleTimeout time.Duration
	Restart     Restart
	Health      Health
	Log         Logging
	VM          VM
	Network     Network

	// Auth is for a pull that Create may need; nobody keeps it.
	Auth *image.Auth `json:"-"`
}

// Pull says when an image is fetched.
type Pull string

// The policies. Empty is PullMissing.
const (
	PullMissing Pull = "missing"
	PullAlways  Pull = "always"
	PullNever   Pull = "never"
)

// VM is what a user asks of the machine; what is given here wins over the resources.
type VM struct {
	VCPUs       int
	MemoryBytes int64
	Kernel      string
	KernelArgs  string
	Labels      map[string]string
	Annotations map[string]string
	Engine      string
	Nested      bool
	DiskLimit   machine.RateLimit // of each of its drives
}

// Exit tells how a process ended.
type Exit struct {
	Code      uint32 // 0-255; 128+n when ended by signal n
	Signal    uint32
	OOMKilled bool
	At        time.Time
	Reason    string // when the machine ended rather than the process
}

// Info is a container as it is now. It is a copy; its maps and slices must not be changed.
type Info struct {
	ID        string // 64 hex digits
	Name      string
	Config    Config // as in effect
	ImageID   string
	State     State
	MachineID string
	PID       uint32 // in the guest, 0 when it does not run

	Health HealthState // of the current or last run; zero when it is not checked

	RestartCount int // of starts by the policy since a user started it

	Created, Started, Finished time.Time
	Suspended                  time.Time // since when it is; zero: it is not

	Exit    *Exit    // of the last run; nil before its end
	Args    []string // entrypoint and command, as executed
	LogPath string
	Error   string // why it could not be started, or woken
}

// Running tells whether it is up, going there or ending; Docker counts one that waits for its next start among these.
func (i Info) Running() bool {
	return i.State == Starting || i.State == Running || i.State == Paused || i.State == Suspended || i.State == Stopping || i.State == Restarting
}
