// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Package vmm is the border between micropod and the virtual machine monitors
// that run its machines. It declares what an engine must do; each engine lives
// in a folder of its own below, and nothing above this package names one.
//
// Call order for one machine:
//
//	Engine.Start or Engine.Restore   -> Machine, running
//	  Machine.GuestConn              -> the byte pipe to the agent, as often as wanted, one at a time
//	  Machine.Pause, Snapshot, Resume, SetDrive, SetBalloon, Stats
//	  Machine.Kill                   -> forceful end (the graceful one is asked of the agent)
//	Machine.Wait                     -> how it ended
//	Machine.Close                    -> frees what the engine holds for it on the host
//
// A Machine outlives the process that started it. Machine.Record is plain data,
// stored by the caller; Engine.Adopt turns it into a Machine again after a
// restart of the daemon.
//
// Contexts bound the call alone. None of them ends the machine.
package vmm

import (
	"context"
	"errors"
	"net"
	"time"
)

// Engine starts machines. All methods may be called concurrently.
type Engine interface {
	// Name is the engine's name as users write it, such as "qemu".
	Name() string

	// Start boots a machine and returns as soon as its VMM runs; whether the
	// guest is up is told by its agent over GuestConn. On error nothing is left
	// of the machine, neither process nor file nor cgroup.
	Start(ctx context.Context, c Config) (Machine, error)

	// Restore starts a machine from the snapshot in folder snapshot, memory copy-on-write,
	// running. The folder is only read and may serve many machines at once; it must
	// stay as long as one of them runs. c must have the shape of the machine
	// that was saved (vCPUs, memory, number of drives and of interfaces); paths, TAPs and MACs may differ.
	Restore(ctx context.Context, c Config, snapshot string) (Machine, error)

	// Adopt takes over a machine that an earlier process started. It returns
	// ErrGone when its VMM no longer runs, whatever now has its pid, after
	// having removed what was left of it. So it also cleans up after a start that nobody lived to
	// record: r then has Engine, ID, Dir and Cgroup (/CgroupParent/ID) only.
	Adopt(ctx context.Context, r Record) (Machine, error)
}

// Machine is one running (or ended) virtual machine. Methods may be called
// concurrently; those that change the machine are carried out one after the other.
type Machine interface {
	// Record is what Adopt needs. It never changes during a machine's life.
	Record() Record

	// GuestConn connects to the agent's end of the guest channel. It succeeds
	// as soon as the VMM listens, perhaps before the agent does: the bytes
	// wait. One connection at a time; the caller closes it. A machine restored
	// or adopted starts without one.
	GuestConn(ctx context.Context) (net.Conn, error)

	// Pause stops the vCPUs; Resume lets them run on. Both are idempotent.
	Pause(ctx context.Context) error
	Resume(ctx context.Context) error

	// Snapshot saves memory and device state of a paused machine into folder dir,
	// which must exist and be empty but for what PrepareSnapshot put there. The machine stays paused and goes on
	// with Resume, but its connection to the guest may have ended. Drives are not copied: that is the caller's, who knows
	// which are shared. On error dir is empty again.
	Snapshot(ctx context.Context, dir string) error

	// PrepareSnapshot writes into the empty folder dir what a Snapshot of the machine, taken there later, would
	// have to write whatever happens meanwhile, so that the pause is short. It may be left out. On error dir is empty again.
	PrepareSnapshot(ctx context.Context, dir string) error

	// SetDrive replaces what lies behind the drive in the given slot (index in
	// Config.Drives). The guest must not have it mounted. d.ReadOnly must be the
	// slot's. Some engines let the guest go on to see the size that the slot had at
	// its boot; an empty slot has 1 TiB there, larger than what is put into it.
	SetDrive(ctx context.Context, slot int, d Drive) error

	// LimitDrive bounds the drive in the given slot anew, also while the machine runs; SetDrive leaves the bound. A
	// zero limit takes it away.
	LimitDrive(ctx context.Context, slot int, l RateLimit) error

	// LimitInterface bounds what the guest receives and sends on an interface (index in Config.Interfaces), likewise.
	// An engine that cannot returns an *UnsupportedError: the host's network can bound it too.
	LimitInterface(ctx context.Context, i int, receive, send RateLimit) error

	// SetBalloon asks the guest to leave size bytes of memory to itself and
	// hand back the rest. It returns when asked, not when done: see Stats. An engine that
	// cannot for a restored machine returns an *UnsupportedError.
	SetBalloon(ctx context.Context, size int64) error

	// Stats tells what the machine uses on the host now.
	Stats(ctx context.Context) (Stats, error)

	// Console is the file of the guest's console output, bounded: the oldest is dropped.
	Console() string

	// Files tells where what the VMM listens on and writes can be found while it runs.
	Files() Files

	// Wait returns when the VMM's process is gone, or with ctx's error.
	Wait(ctx context.Context) (Exit, error)

	// Kill ends the VMM at once and returns when its process is gone. Killing
	// an ended machine is no error.
	Kill(ctx context.Context) error

	// Close frees what the engine made on the host for the machine: sockets,
	// cgroup, its folder's files other than the console's. A machine that still runs is only let go of:
	// file descriptors and goroutines of this process end, the machine goes on and can be adopted again.
	Close() error
}

// Config says what a machine is made of. Engines check it and refuse what they
// cannot do with an *UnsupportedError.
type Config struct {
	ID  string // required; unique on this host; [a-z0-9-], at most 64 bytes
	Dir string // required; existing folder of this machine alone for sockets, logs, state

	VCPUs  int   // required; 1 to the host's number
	Memory int64 // required; bytes, a multiple of 1 MiB, at least 64 MiB

	Kernel string // required; uncompressed ELF vmlinux, readable by UID
	Initrd string // required; the initramfs with the agent as /init, readable by UID
	Args   string // kernel command line beyond what the engine needs itself

	// Drives become the guest's virtio block devices in this order: Drives[0]
	// is /dev/vda, Drives[1] /dev/vdb and so on.
	Drives []Drive

	// NetNS is the path of the network namespace that the VMM runs in; empty: the
	// caller's (then Interfaces must be empty).
	NetNS string
	// Interfaces become virtio network devices in this order: eth0, eth1 and so on.
	Interfaces []Interface

	// UID and GID that the VMM runs under; a machine's own. Zero means the caller's.
	UID, GID int

	// MemoryLimit bounds VMM and guest together on the host, in bytes (cgroup); zero means none.
	MemoryLimit int64
	// CgroupParent is the cgroup, relative to the hierarchy's root, under which the
	// machine's own is made. Empty means "micropod".
	CgroupParent string

	// Nested lets the guest run virtual machines itself.
	Nested bool
	// ConsoleBytes bounds the console's file; zero means 1 MiB.
	ConsoleBytes int64

	// Log and Metrics are paths of files of the user's for what Files tells, kept when the machine ends; empty: in Dir, and
	// gone with the machine.
	Log, Metrics string
}

// Drive is a file or block device presented to the guest as a raw disk.
// An empty Path is a slot kept free for SetDrive.
type Drive struct {
	Path     string
	ReadOnly bool
	Limit    RateLimit
	Foreign  bool // the user's own: its owner and mode stay as they are
}

// Interface is a network device of the guest, joined to a TAP device of the host.
type Interface struct {
	// TAP names a device that is in Config.NetNS. Empty: joined to nothing, as a template's are.
	TAP string
	// MAC is unicast. A restored guest goes on with that of the machine that was saved until
	// its agent sets another.
	MAC net.HardwareAddr
	// MTU in bytes is for engines that can tell the guest; zero means 1500. The agent sets it as well.
	MTU int
	// Receive and Send bound what the guest gets and gives. Engines that cannot refuse them.
	Receive, Send RateLimit
}

// Record is what must be kept to find a machine again after a restart. It holds
// no secrets and may be stored as JSON.
type Record struct {
	Engine    string
	ID        string
	Dir       string
	PID       int
	StartTime uint64 // of the process, in clock ticks since the host's boot (field 22 of /proc/PID/stat)
	BootID    string // /proc/sys/kernel/random/boot_id when started: a pid means nothing after a reboot
	Cgroup    string
	Config    Config
}

// Files of a VMM on the host. A path is empty where an engine has no such file.
type Files struct {
	Socket  string // that it is steered by: for looking, the engine owns it
	Log     string // of what it says itself, bounded
	Metrics string // of what it counts, bounded: Firecracker's JSON, a line for each minute
}

// Stats is what a machine uses at one moment.
type Stats struct {
	CPU           time.Duration // of the VMM process since its start, guest included
	ResidentBytes int64         // of the VMM process, guest memory included
	GuestBytes    int64         // of ResidentBytes: the guest's memory; the rest is the VMM's own
	BalloonBytes  int64         // handed back by the guest
	// GuestAvailable is what the guest says that its programs could still have, in bytes, as of the last second or two. Zero
	// where an engine does not ask, or the guest has not answered yet.
	GuestAvailable int64
}

// Exit tells how a VMM ended.
type Exit struct {
	Code   int    // exit code, or -1 when not known (an adopted machine is no child of ours)
	Signal int    // when ended by a signal, else 0
	Reason string // for people; one of those below where it fits
	At     time.Time
}

// Reasons of an Exit that all engines word alike.
const (
	PoweredOff = "guest powered off"
	Rebooted   = "guest rebooted" // which ends a machine too
	Crashed    = "guest crashed"
	Killed     = "killed"
	Unknown    = "unknown"
)

// Orderly says whether the guest ended by its own will.
func (e Exit) Orderly() bool { return e.Reason == PoweredOff || e.Reason == Rebooted }

// Errors that callers tell apart.
var (
	// ErrGone is returned by Adopt, and by calls to a machine whose VMM ended.
	ErrGone = errors.New("machine is gone")
	// ErrNotPaused is returned by Snapshot when the vCPUs run.
	ErrNotPaused = errors.New("machine is not paused")
)

// UnsupportedError says that an engine cannot do something, and why.
type UnsupportedError struct {
	Engine  string
	Feature string
	Reason  string
}

func (e *UnsupportedError) Error() string {
	return "engine " + e.Engine + " does not support " + e.Feature + ": " + e.Reason
}

// StartError says that a VMM could not be started or ended before its guest
// was up. Console and Log carry the last lines of the guest's console and of the VMM's
// own output, for people.
type StartError struct {
	Step    string // such as "starting qemu-system-x86_64", "connecting to QMP"
	Err     error
	Console string
	Log     string
}

func (e *StartError) Error() string {
	s := e.Step + ": " + e.Err.Error()
	if e.Log != "" {
		s += "; its last words: " + e.Log
	}
	return s
}

func (e *StartError) Unwrap() error { return e.Err }
