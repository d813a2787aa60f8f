// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Package network gives machines their network: a namespace with Ethernet ends and
// TAPs for each (a slot), bridges between them, addresses, the way out, published
// ports, and the walls between all these.
//
// Call order: Open with what the caller has on record (networks and slots), which
// makes that again where the host lost it and removes what belongs to nobody; then
// CreateNetwork, TakeSlot, Publish and their opposites from any goroutine; Close,
// which leaves networks and slots of machines as they are. Prune instead of Close
// when micropod leaves the host.
//
// All of it takes and returns plain data, which the caller keeps: the package has no
// files but the names of its namespaces and the settings it changed on the host. What
// needs privileges is here; nothing here knows of machines or containers.
package network

import (
	"cmp"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Config says where and for whom. RunDir and Instance are required.
type Config struct {
	// Instance tells the daemons of one host apart: whatever is alike in all runs of one
	// daemon and in no other's, such as its data folder. Names of devices and tables come from it.
	Instance string
	// RunDir holds the namespaces' names, best on a tmpfs; made if missing.
	RunDir string
	// StateDir keeps what the host's settings were before, over reboots of the daemon.
	// Empty means RunDir.
	StateDir string
	// NetNS is the path of the namespace that is the host; empty means the caller's.
	NetNS string
	// Spare is how many slots are made ahead of need; 0 means none.
	Spare int
	// NICs is how many interfaces each slot has, used or not: none can be added to a
	// running machine. 0 means 1, at most MaxNICs.
	NICs int
	// Proxy is the command that runs portproxy.Main with further arguments: it holds published
	// ports and outlives the daemon. Without it no port can be published.
	Proxy []string
	// Metadata is the command that runs mmds.Main with further arguments, and outlives the daemon likewise. Without it
	// no machine can be served metadata.
	Metadata []string
	// Log gets what went wrong off the callers' paths; nil discards it.
	Log *slog.Logger
}

// MaxNICs is the most interfaces that a slot can have.
const MaxNICs = 4

// Host is the networking of one daemon on this host. Its methods may be called
// concurrently.
type Host struct {
	Config
	tag     string // of Instance, in the names of what is made
	ns      *os.File
	links   *netlink.Handle
	pool    *pool
	watcher *watcher

	netMu sync.Mutex // one change of the networks at a time; taken before mu

	// egressMu is held for writing while a slot's egress rules change, for reading while names enter their sets: each set
	// belongs to a rule by its number. Taken before mu.
	egressMu sync.RWMutex

	mu       sync.Mutex // guards what follows
	networks map[string]*space
	slots    map[string]*Slot
	// resolutions are what name servers told machines with egress rules, by slot, the latest last.
	resolutions map[string][]resolution

	tableMu sync.Mutex // one change of the host's table at a time
	nft     *nftables.Conn
}

// Open makes the host ready and brings it to what is known: networks and slots as
// the caller has them on record. Slots that the host lost (by a reboot) are returned
// as gone: their machines cannot run any more and want new ones.
func Open(c Config, networks []Network, slots []Slot) (_ *Host, gone []Slot, err error) {
	if err := c.check(); err != nil {
		return nil, nil, err
	}
	h := &Host{
		Config: c, tag: hash(c.Instance, 4),
		networks: map[string]*space{}, slots: map[string]*Slot{}, resolutions: map[string][]resolution{},
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.Close())
		}
	}()
	if err := h.connect(); err != nil {
		return nil, nil, err
	}
	if gone, err = h.restore(networks, slots); err != nil {
		return nil, nil, err
	}
	if h.watcher, err = h.watch(); err != nil {
		return nil, nil, err
	}
	h.pool = newPool(h)
	return h, gone, nil
}

func (c *Config) check() error {
	switch {
	case c.Instance == "":
		return errors.New("network: no instance given")
	case !filepath.IsAbs(c.RunDir):
		return fmt.Errorf("network: RunDir %q is not an absolute path", c.RunDir)
	case c.NICs < 0 || c.NICs > MaxNICs:
		return fmt.Errorf("network: %d interfaces in each slot, 1 to %d can be", c.NICs, MaxNICs)
	}
	c.NICs = cmp.Or(c.NICs, 1)
	c.StateDir = cmp.Or(c.StateDir, c.RunDir)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

// connect opens the namespace that is the host, and sockets in it that stay open.
func (h *Host) connect() (err error) {
	path := cmp.Or(h.NetNS, "/proc/thread-self/ns/net")
	if h.ns, err = os.Open(path); err != nil {
		return fmt.Errorf("opening the host's network namespace: %w", err)
	}
	if h.links, err = netlink.NewHandleAt(netns.NsHandle(h.ns.Fd()), unix.NETLINK_ROUTE, unix.NETLINK_NETFILTER); err != nil {
		return fmt.Errorf("opening a netlink socket: %w", err)
	}
	if h.nft, err = nftables.New(nftables.WithNetNSFd(int(h.ns.Fd())), nftables.AsLasting()); err != nil {
		return fmt.Errorf("opening an nftables socket: %w", err)
	}
	return nil
}

// Close stops what runs in the background and removes the spare slots. Networks,
// slots that are taken and published ports stay.
func (h *Host) Close() error {
	var errs []error
	if h.pool != nil {
		errs = append(errs, h.pool.close())
	}
	if h.watcher != nil {
		errs = append(errs, h.watcher.close())
	}
	if h.nft != nil {
		errs = append(errs, h.nft.CloseLasting())
	}
	if h.links != nil {
		h.links.Close()
	}
	if h.ns != nil {
		errs = append(errs, h.ns.Close())
	}
	return errors.Join(errs...)
}

var lower = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// hash gives n characters (5 bits each) that are likely to be of s alone.
func hash(s string, n int) string {
	sum := sha256.Sum256([]byte(s))
	return lower.EncodeToString(sum[:])[:n]
}

// owner is the alias of the devices that are ours: "micropod TAG KIND ID". By it they are
// found again, whatever their names.
func (h *Host) owner(kind, id string) string {
	return strings.Join([]string{"micropod", h.tag, kind, id}, " ")
}
