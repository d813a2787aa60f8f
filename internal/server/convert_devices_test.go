// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"errors"
	"math"
	"testing"

	"google.golang.org/protobuf/proto"

	v1 "github.com/micropod/micropod/api/micropod/v1"
	"github.com/micropod/micropod/internal/machine"
)

// What a user adds to a machine comes back as it was said.
func TestDevicesThereAndBack(t *testing.T) {
	t.Parallel()
	limit := &v1.RateLimiter{Bandwidth: &v1.TokenBucket{Size: 5 << 20, RefillTime: 100, OneTimeBurst: 7}, Ops: &v1.TokenBucket{Size: 3, RefillTime: 1000}}
	c := &v1.VMConfig{
		RootfsPath:   "/root.ext4",
		RateLimiters: &v1.RateLimiters{Disk: limit},
		BlockDevices: []*v1.BlockDevice{{DriveId: "data", PathOnHost: "/data", IsReadOnly: true, RateLimiter: limit}, {DriveId: "more", PathOnHost: "/more", IsRootDevice: true}},
		NetworkInterfaces: []*v1.NetworkInterface{{
			IfaceId: "eth", GuestMac: "02:00:00:00:00:01", HostDevName: "tap0", TapDevice: "tap0", RxRateLimiter: limit, TxRateLimiter: limit,
		}},
		LogPath: "/log", MetricsPath: "/metrics",
	}
	spec, err := specFromWire(&v1.CreateVMRequest{Config: c})
	if err != nil {
		t.Fatal(err)
	}
	if got := vmToWire(machine.Info{Spec: spec}).Config; !proto.Equal(got, c) {
		t.Errorf("there and back it is\n%v\nwant\n%v", got, c)
	}
}

func TestDevicesThatCannotBe(t *testing.T) {
	t.Parallel()
	huge := &v1.RateLimiter{Ops: &v1.TokenBucket{Size: math.MaxUint64, RefillTime: 1}}
	for name, c := range map[string]*v1.VMConfig{
		"two TAPs":      {NetworkInterfaces: []*v1.NetworkInterface{{HostDevName: "a", TapDevice: "b"}}},
		"MAC":           {NetworkInterfaces: []*v1.NetworkInterface{{HostDevName: "a", GuestMac: "x"}}},
		"receive limit": {NetworkInterfaces: []*v1.NetworkInterface{{RxRateLimiter: huge}}},
		"send limit":    {NetworkInterfaces: []*v1.NetworkInterface{{TxRateLimiter: huge}}},
		"drive's limit": {BlockDevices: []*v1.BlockDevice{{RateLimiter: huge}}},
		"disk limit":    {RateLimiters: &v1.RateLimiters{Disk: huge}},
	} {
		var wrong *requestError
		if _, err := specFromWire(&v1.CreateVMRequest{Config: c}); !errors.As(err, &wrong) {
			t.Errorf("%s: %v, want a *requestError", name, err)
		}
	}
	for name, c := range map[string]*v1.VMConfig{
		"root": {RootfsPath: "/x"}, "drive": {BlockDevices: make([]*v1.BlockDevice, 1)}, "log": {LogPath: "/x"}, "limit": {RateLimiters: &v1.RateLimiters{Disk: huge}},
	} {
		var wrong *requestError
		if _, err := vmFromWire(c); !errors.As(err, &wrong) {
			t.Errorf("a container's machine, %s: %v, want a *requestError", name, err)
		}
	}
}
