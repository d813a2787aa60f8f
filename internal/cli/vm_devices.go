// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

// vmDevices are the user's own disks, TAP devices and files of a machine.
type vmDevices struct {
	rootfs, log, metrics string
	drives, taps         []string
	disk                 diskFlags
}

func (o *vmDevices) addFlags(f *pflag.FlagSet) {
	f.StringVar(&o.rootfs, "rootfs", "", "run the init of a disk of your own: a `file` with ext4 or EROFS, or a block device")
	f.StringArrayVar(&o.drives, "drive", nil, "add a disk of your own, /dev/vdc and on: `file[:ro]`")
	f.StringArrayVar(&o.taps, "tap", nil, "join the machine to a TAP `device` of your own in place of networks: name[,mac]")
	f.StringVar(&o.log, "vmm-log", "", "`file` for what the VMM itself says")
	f.StringVar(&o.metrics, "vmm-metrics", "", "`file` for what the VMM counts (firecracker)")
	o.disk.addFlags(f)
}

// read puts the flags into the machine's configuration. The daemon may run in another folder, so paths become absolute.
func (o *vmDevices) read(c *v1.VMConfig) error {
	for _, p := range []struct {
		from string
		to   *string
	}{{o.rootfs, &c.RootfsPath}, {o.log, &c.LogPath}, {o.metrics, &c.MetricsPath}} {
		if p.from == "" {
			continue
		}
		path, err := filepath.Abs(p.from)
		if err != nil {
			return err
		}
		*p.to = path
	}
	for i, d := range o.drives {
		path, readOnly := strings.CutSuffix(d, ":ro")
		path, err := filepath.Abs(path)
		if err != nil {
			return err
		}
		c.BlockDevices = append(c.BlockDevices, &v1.BlockDevice{DriveId: fmt.Sprintf("drive%d", i), PathOnHost: path, IsReadOnly: readOnly})
	}
	for i, t := range o.taps {
		name, mac, _ := strings.Cut(t, ",")
		c.NetworkInterfaces = append(c.NetworkInterfaces, &v1.NetworkInterface{IfaceId: fmt.Sprintf("eth%d", i), HostDevName: name, GuestMac: mac})
	}
	if err := o.disk.check(nil); err != nil {
		return err
	}
	c.RateLimiters = o.disk.limiters
	return nil
}
