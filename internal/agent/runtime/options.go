// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// attribute is a mount option that is an attribute of the mount point.
type attribute struct{ set, clear uint64 }

// attributes by option, as mount(8) names them. The same name with an "r" before
// it means the whole tree below (OCI runtime spec, config.md "Linux mount options").
var attributes = map[string]attribute{
	"ro":          {set: unix.MOUNT_ATTR_RDONLY},
	"rw":          {clear: unix.MOUNT_ATTR_RDONLY},
	"nosuid":      {set: unix.MOUNT_ATTR_NOSUID},
	"suid":        {clear: unix.MOUNT_ATTR_NOSUID},
	"nodev":       {set: unix.MOUNT_ATTR_NODEV},
	"dev":         {clear: unix.MOUNT_ATTR_NODEV},
	"noexec":      {set: unix.MOUNT_ATTR_NOEXEC},
	"exec":        {clear: unix.MOUNT_ATTR_NOEXEC},
	"nodiratime":  {set: unix.MOUNT_ATTR_NODIRATIME},
	"diratime":    {clear: unix.MOUNT_ATTR_NODIRATIME},
	"noatime":     {set: unix.MOUNT_ATTR_NOATIME, clear: unix.MOUNT_ATTR__ATIME},
	"atime":       {clear: unix.MOUNT_ATTR__ATIME},
	"strictatime": {set: unix.MOUNT_ATTR_STRICTATIME, clear: unix.MOUNT_ATTR__ATIME},
	// Relatime is number 0 in the field of access time policies.
	"relatime":      {clear: unix.MOUNT_ATTR__ATIME},
	"norelatime":    {clear: unix.MOUNT_ATTR__ATIME},
	"nostrictatime": {clear: unix.MOUNT_ATTR__ATIME},
	"nosymfollow":   {set: unix.MOUNT_ATTR_NOSYMFOLLOW},
	"symfollow":     {clear: unix.MOUNT_ATTR_NOSYMFOLLOW},
	"defaults":      {},
}

var propagations = map[string]uint64{
	"private": unix.MS_PRIVATE, "rprivate": unix.MS_PRIVATE | unix.MS_REC,
	"slave": unix.MS_SLAVE, "rslave": unix.MS_SLAVE | unix.MS_REC,
	"shared": unix.MS_SHARED, "rshared": unix.MS_SHARED | unix.MS_REC,
	"unbindable": unix.MS_UNBINDABLE, "runbindable": unix.MS_UNBINDABLE | unix.MS_REC,
}

// ignoredOptions mean nothing to the kernel's mount calls, or only what happens anyway.
var ignoredOptions = []string{"bind", "rbind", "nofail", "_netdev", "loud", "remount"}

// planMount turns an entry of the spec's mounts into numbers. A bind's FD is left -1.
func planMount(m specs.Mount) (mountPlan, error) {
	p := mountPlan{Dest: m.Destination, Source: m.Source, FD: -1}
	if !strings.HasPrefix(m.Destination, "/") {
		return p, invalid("mount destination %q is not an absolute path", m.Destination)
	}
	if path.Clean(m.Destination) == "/" {
		return p, invalid("mount destination %q is the root file system itself", m.Destination)
	}
	if len(m.UIDMappings)+len(m.GIDMappings) > 0 {
		return p, invalid("mount on %s: id-mapped mounts are not supported", m.Destination)
	}
	if !isBind(m) {
		p.Type = m.Type
		if p.Type == "" || p.Type == "none" {
			return p, invalid("mount on %s has no type", m.Destination)
		}
		if p.Type == "cgroup" {
			p.Type = "cgroup2" // the only hierarchy of the machine
		}
	}
	for _, option := range m.Options {
		p.addOption(option)
	}
	if isBind(m) && len(p.Data) > 0 {
		return p, invalid("mount on %s: option %q does not apply to a bind mount", m.Destination, p.Data[0])
	}
	return p, nil
}

func (p *mountPlan) addOption(option string) {
	if a, ok := attributes[option]; ok {
		p.Set = p.Set&^a.clear | a.set
		p.Clear = p.Clear&^a.set | a.clear
		return
	}
	if a, ok := attributes[strings.TrimPrefix(option, "r")]; ok {
		p.RecSet = p.RecSet&^a.clear | a.set
		p.RecClear = p.RecClear&^a.set | a.clear
		return
	}
	if flag, ok := propagations[option]; ok {
		p.Propagation = append(p.Propagation, flag)
		return
	}
	if option != "" && !slices.Contains(ignoredOptions, option) {
		p.Data = append(p.Data, option)
	}
}

func isBind(m specs.Mount) bool {
	return m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
}
