// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"fmt"
	"math"
	"net"
	"time"

	v1 "github.com/micropod/micropod/api/micropod/v1"
	"github.com/micropod/micropod/internal/machine"
)

// rootDrive is the id of the drive that rootfs_path names.
const rootDrive = "rootfs"

// devicesOfVM fills in what the user adds to a machine.
func devicesOfVM(c *v1.VMConfig, s *machine.Spec) (err error) {
	if s.DiskLimit, err = limitFromWire("rate_limiters.disk", c.GetRateLimiters().GetDisk()); err != nil {
		return err
	}
	if path := c.GetRootfsPath(); path != "" {
		s.Drives = append(s.Drives, machine.Drive{ID: rootDrive, Path: path, Root: true})
	}
	for _, b := range c.GetBlockDevices() {
		d, err := driveFromWire(b)
		if err != nil {
			return err
		}
		s.Drives = append(s.Drives, d)
	}
	for _, n := range c.GetNetworkInterfaces() {
		nic, err := nicFromWire(n)
		if err != nil {
			return err
		}
		s.NICs = append(s.NICs, nic)
	}
	return nil
}

func driveFromWire(b *v1.BlockDevice) (d machine.Drive, err error) {
	d = machine.Drive{ID: b.GetDriveId(), Path: b.GetPathOnHost(), ReadOnly: b.GetIsReadOnly(), Root: b.GetIsRootDevice()}
	d.Limit, err = limitFromWire("block_devices.rate_limiter", b.GetRateLimiter())
	return d, err
}

func nicFromWire(n *v1.NetworkInterface) (nic machine.NIC, err error) {
	nic = machine.NIC{ID: n.GetIfaceId(), TAP: n.GetHostDevName()}
	switch tap := n.GetTapDevice(); {
	case nic.TAP == "":
		nic.TAP = tap
	case tap != "" && tap != nic.TAP:
		return nic, &requestError{"tap_device", fmt.Sprintf("%q and host_dev_name %q are the same field, yet differ", tap, nic.TAP)}
	}
	if mac := n.GetGuestMac(); mac != "" {
		if nic.MAC, err = net.ParseMAC(mac); err != nil {
			return nic, &requestError{"guest_mac", err.Error()}
		}
	}
	if nic.Receive, err = limitFromWire("rx_rate_limiter", n.GetRxRateLimiter()); err != nil {
		return nic, err
	}
	nic.Send, err = limitFromWire("tx_rate_limiter", n.GetTxRateLimiter())
	return nic, err
}

func limitFromWire(field string, r *v1.RateLimiter) (l machine.RateLimit, err error) {
	if l.Bandwidth, err = bucketFromWire(field+".bandwidth", r.GetBandwidth()); err != nil {
		return l, err
	}
	l.Ops, err = bucketFromWire(field+".ops", r.GetOps())
	return l, err
}

// bucketFromWire takes a bucket of size 0, whatever its refill time, for no bound.
func bucketFromWire(field string, t *v1.TokenBucket) (machine.TokenBucket, error) {
	if t.GetSize() == 0 {
		return machine.TokenBucket{}, nil
	}
	if max(t.GetSize(), t.GetOneTimeBurst()) > math.MaxInt64 || t.GetRefillTime() > math.MaxInt64/uint64(time.Millisecond) {
		return machine.TokenBucket{}, &requestError{field, "a number is larger than any disk or network is fast"}
	}
	return machine.TokenBucket{Size: int64(t.Size), Refill: time.Duration(t.RefillTime) * time.Millisecond, Burst: int64(t.OneTimeBurst)}, nil
}

// limitChangeFromWire leaves alone what is absent.
func limitChangeFromWire(field string, r *v1.RateLimiter) (c machine.LimitChange, err error) {
	for _, b := range []struct {
		name string
		from *v1.TokenBucket
		to   **machine.TokenBucket
	}{{"bandwidth", r.GetBandwidth(), &c.Bandwidth}, {"ops", r.GetOps(), &c.Ops}} {
		if b.from == nil {
			continue
		}
		bucket, err := bucketFromWire(field+"."+b.name, b.from)
		if err != nil {
			return c, err
		}
		*b.to = &bucket
	}
	return c, nil
}

func limitToWire(l machine.RateLimit) *v1.RateLimiter {
	if l.IsZero() {
		return nil
	}
	return &v1.RateLimiter{Bandwidth: bucketToWire(l.Bandwidth), Ops: bucketToWire(l.Ops)}
}

func bucketToWire(b machine.TokenBucket) *v1.TokenBucket {
	if b.Size == 0 {
		return nil
	}
	return &v1.TokenBucket{Size: uint64(b.Size), RefillTime: uint64(b.Refill.Milliseconds()), OneTimeBurst: uint64(b.Burst)}
}

func limitersToWire(disk machine.RateLimit) *v1.RateLimiters {
	if disk.IsZero() {
		return nil
	}
	return &v1.RateLimiters{Disk: limitToWire(disk)}
}

// drivesToWire gives the drive that rootfs_path named apart.
func drivesToWire(drives []machine.Drive) (root string, list []*v1.BlockDevice) {
	for _, d := range drives {
		if d.Root && d.ID == rootDrive {
			if d.Limit.IsZero() && !d.ReadOnly { // all that rootfs_path can say
				root = d.Path
				continue
			}
		}
		list = append(list, &v1.BlockDevice{DriveId: d.ID, PathOnHost: d.Path, IsRootDevice: d.Root, IsReadOnly: d.ReadOnly, RateLimiter: limitToWire(d.Limit)})
	}
	return root, list
}

func nicsToWire(nics []machine.NIC) (list []*v1.NetworkInterface) {
	for _, n := range nics {
		list = append(list, &v1.NetworkInterface{
			IfaceId: n.ID, GuestMac: n.MAC.String(), HostDevName: n.TAP, TapDevice: n.TAP,
			RxRateLimiter: limitToWire(n.Receive), TxRateLimiter: limitToWire(n.Send),
		})
	}
	return list
}

func resourcesOfVM(s machine.Stats) *v1.VMResources {
	return &v1.VMResources{
		CpuNanos:         uint64(max(s.CPU, 0)),
		ResidentBytes:    uint64(max(s.ResidentBytes, 0)),
		GuestBytes:       uint64(max(s.GuestBytes, 0)),
		BalloonBytes:     uint64(max(s.BalloonBytes, 0)),
		MemoryLimitBytes: uint64(max(s.MemoryLimit, 0)),

		GuestAvailableBytes: uint64(max(s.GuestAvailable, 0)),
	}
}
