// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package runtime

// A plan is what the agent makes of an OCI runtime spec: checked, all names
// turned into numbers, so that the child only carries it out. Descriptors that
// travel with it are told by their place in the message (-1: none).

// containerPlan is a container to set up and become.
type containerPlan struct {
	// MountOnly asks to mount Root ahead and to wait for the plan of a container that uses it; all else is empty.
	MountOnly bool

	Join       []joinPlan // namespaces to enter by descriptor
	Unshare    uint64     // CLONE_NEW* flags of further namespaces to make
	Hostname   string
	Domainname string
	Root       rootPlan
	Mounts     []mountPlan
	Devices    []devicePlan
	Files      []File
	Masked     []string
	Readonly   []string
	Sysctls    []sysctlPlan
	Process    processPlan
}

// joinPlan is a namespace to enter with setns.
type joinPlan struct {
	FD   int
	Type uint64 // CLONE_NEW*
}

// rootPlan is the root file system: an overlay of two devices or a folder.
type rootPlan struct {
	Image       uint64 // device number (unix.Mkdev) of the EROFS image
	Scratch     uint64 // device number of the ext4 disk
	Folder      int    // descriptor of a detached mount in place of the two, or -1
	Readonly    bool
	Propagation uint64 // MS_* flag, perhaps with MS_REC; 0: as it is (private)
	Ahead       bool   // it is mounted already
	Fresh       bool   // what is on the disk is dropped before
}

// mountPlan is one entry of the spec's mounts.
type mountPlan struct {
	Dest        string
	Type        string // of the file system; "" for a bind
	Source      string
	Data        []string // options of the file system
	Set, Clear  uint64   // MOUNT_ATTR_*
	RecSet      uint64   // the same for all mounts below, binds only
	RecClear    uint64
	Propagation []uint64 // MS_* flags, perhaps with MS_REC, in order
	FD          int      // a bind's detached mount, or -1
	File        bool     // the bind's source is no folder
}

type devicePlan struct {
	Path     string
	Mode     uint32 // type and permissions, as for mknod
	Device   uint64
	UID, GID uint32
}

type sysctlPlan struct{ Key, Value string }

// processPlan is the process to become, in a container that is there already.
type processPlan struct {
	Args, Env   []string
	Cwd         string
	MakeCwd     bool
	User        string // as users write it; "": the three below count
	UID, GID    uint32
	Groups      []uint32
	GroupAdd    []string // names or ids, in addition
	Umask       uint32
	Terminal    bool
	Rows, Cols  uint32
	Init        bool // run Args below a small init
	NoNewPrivs  bool
	Caps        capsPlan
	Rlimits     []rlimitPlan
	Seccomp     []byte // struct sock_filter array; empty: none
	Personality uint64
	SetPersona  bool
	Stdio       [3]int // descriptors of standard input, output, error; -1 with a terminal
}

// capsPlan has the five sets of capabilities as bits.
type capsPlan struct {
	Bounding, Effective, Inheritable, Permitted, Ambient uint64
}

type rlimitPlan struct {
	Resource   int
	Soft, Hard uint64
}

// joinContainerPlan is a process to start in a container that runs.
type joinContainerPlan struct {
	Join    []joinPlan
	Process processPlan
}

func (p *containerPlan) wire(c *codec) {
	c.bool(&p.MountOnly)
	list(c, &p.Join, func(j *joinPlan) { j.wire(c) })
	c.uint(&p.Unshare)
	c.str(&p.Hostname)
	c.str(&p.Domainname)
	p.Root.wire(c)
	list(c, &p.Mounts, func(m *mountPlan) { m.wire(c) })
	list(c, &p.Devices, func(d *devicePlan) { d.wire(c) })
	list(c, &p.Files, func(f *File) { f.wire(c) })
	c.strs(&p.Masked)
	c.strs(&p.Readonly)
	list(c, &p.Sysctls, func(s *sysctlPlan) { c.str(&s.Key); c.str(&s.Value) })
	p.Process.wire(c)
}

func (p *joinContainerPlan) wire(c *codec) {
	list(c, &p.Join, func(j *joinPlan) { j.wire(c) })
	p.Process.wire(c)
}

func (p *joinPlan) wire(c *codec) {
	c.int(&p.FD)
	c.uint(&p.Type)
}

func (p *rootPlan) wire(c *codec) {
	c.uint(&p.Image)
	c.uint(&p.Scratch)
	c.int(&p.Folder)
	c.bool(&p.Readonly)
	c.uint(&p.Propagation)
	c.bool(&p.Ahead)
	c.bool(&p.Fresh)
}

func (p *mountPlan) wire(c *codec) {
	c.str(&p.Dest)
	c.str(&p.Type)
	c.str(&p.Source)
	c.strs(&p.Data)
	c.uint(&p.Set)
	c.uint(&p.Clear)
	c.uint(&p.RecSet)
	c.uint(&p.RecClear)
	list(c, &p.Propagation, c.uint)
	c.int(&p.FD)
	c.bool(&p.File)
}

func (p *devicePlan) wire(c *codec) {
	c.str(&p.Path)
	c.u32(&p.Mode)
	c.uint(&p.Device)
	c.u32(&p.UID)
	c.u32(&p.GID)
}

func (f *File) wire(c *codec) {
	c.str(&f.Path)
	c.u32(&f.Mode)
	c.bytes(&f.Content)
}

func (p *processPlan) wire(c *codec) {
	c.strs(&p.Args)
	c.strs(&p.Env)
	c.str(&p.Cwd)
	c.bool(&p.MakeCwd)
	c.str(&p.User)
	c.u32(&p.UID)
	c.u32(&p.GID)
	c.u32s(&p.Groups)
	c.strs(&p.GroupAdd)
	c.u32(&p.Umask)
	c.bool(&p.Terminal)
	c.u32(&p.Rows)
	c.u32(&p.Cols)
	c.bool(&p.Init)
	c.bool(&p.NoNewPrivs)
	p.Caps.wire(c)
	list(c, &p.Rlimits, func(r *rlimitPlan) { c.int(&r.Resource); c.uint(&r.Soft); c.uint(&r.Hard) })
	c.bytes(&p.Seccomp)
	c.uint(&p.Personality)
	c.bool(&p.SetPersona)
	for i := range p.Stdio {
		c.int(&p.Stdio[i])
	}
}

func (p *capsPlan) wire(c *codec) {
	c.uint(&p.Bounding)
	c.uint(&p.Effective)
	c.uint(&p.Inheritable)
	c.uint(&p.Permitted)
	c.uint(&p.Ambient)
}
