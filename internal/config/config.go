// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Package config says where micropod keeps its things and what it was told to use.
//
// Call order: Options.AddFlags on the command's flag set, parse, Options.Load. What
// a flag says wins over the environment, that over the file, that over the
// default. The daemon reads all of it, the command line the folders and the
// socket: it is a leaf without heavy imports. A Config is not changed after Load.
package config

import (
	"log/slog"
	"path/filepath"
)

// Where things are when nobody says otherwise.
const (
	DefaultFile    = "/etc/micropod/config.toml"
	DefaultDataDir = "/var/lib/micropod"
	DefaultRunDir  = "/run/micropod"

	// DefaultSocketGroup may use the socket where such a group exists: packages make it.
	DefaultSocketGroup = "micropod"
	libexecDir         = "/usr/libexec/micropod"
)

// The sizes and ids a daemon uses when nobody says otherwise.
const (
	defaultMemory     = 512 << 20
	defaultVCPUs      = 1
	defaultScratch    = 10 << 30
	defaultNetwork    = "micropod"
	defaultPoolMemory = 1 << 30

	defaultUIDFirst = 0x60000000 // far above what distributions and subuid hand out, below 2^31
	defaultUIDCount = 1 << 16
)

// Config is everything that can be set. All paths are absolute.
type Config struct {
	// File is the configuration file that was read, empty when there was none.
	File string

	DataDir string // images, disks, the state database
	RunDir  string // sockets, logs of machines, the daemon's pid; may vanish with a reboot
	// Host is the socket of a daemon that is started elsewhere; empty means the one of RunDir.
	Host string

	Kernel string // the guests'; empty: searched for
	QEMU   string // qemu-system-*; empty: searched for in PATH
	// Engine runs machines whose request says nothing or "auto".
	Engine string
	// Firecracker and Jailer are names or paths; empty: searched for in PATH. Unjailed leaves the jailer out.
	Firecracker, Jailer string
	Unjailed            bool
	Agent               string // the guest agent's binary

	SocketGroup        string              // whose members may use the socket; empty: DefaultSocketGroup, where there is one
	InsecureRegistries []string            // HOST, HOST:PORT or CIDR that may be used without verified TLS
	Mirrors            map[string][]string // registry host -> hosts to try first

	ImageLimits ImageLimits

	Memory  int64 // bytes; of a machine, when the request says nothing
	VCPUs   int
	Scratch int64 // bytes; size of the writable disk

	// Network is the one that machines join which ask for none; "none": loopback only.
	Network string

	// UIDFirst and UIDCount are the user ids under which VMMs run, one for each machine.
	UIDFirst, UIDCount int

	LogLevel slog.Level

	// PoolMin and PoolMax bound how many machines are kept ready for an image that was just run; PoolMemory, in
	// bytes, what they may need of the host's memory. PoolMax 0: none.
	PoolMin, PoolMax int
	PoolMemory       int64

	OTLPEndpoint string // URL that traces are exported to by OTLP over HTTP; empty: none are
}

// Socket is the daemon's socket as a client reaches it.
func (c *Config) Socket() string {
	if c.Host != "" {
		return c.Host
	}
	return c.ListenSocket()
}

// ListenSocket is where the daemon of RunDir listens.
func (c *Config) ListenSocket() string { return filepath.Join(c.RunDir, "micropod.sock") }

// PIDFile holds the pid of RunDir's daemon.
func (c *Config) PIDFile() string { return filepath.Join(c.RunDir, "micropodd.pid") }

// StartsDaemon says whether a client that finds no daemon may start one: not
// when it was pointed at another's socket.
func (c *Config) StartsDaemon() bool { return c.Host == "" }

// DaemonArgs are the arguments with which micropodd comes to the same folders as this Config.
func (c *Config) DaemonArgs() []string {
	args := []string{"--data-dir", c.DataDir, "--run-dir", c.RunDir}
	if c.File != "" {
		args = append(args, "--config", c.File)
	}
	return args
}
