// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/agent/inroot"
)

// The stem's own small root, a tmpfs. It is left behind, with what is still mounted
// in it, when the container's root takes its place.
const (
	stemRoot    = "/root"
	stemImage   = "/image"
	stemScratch = "/scratch"
	stemFiles   = "/files"
	stemStaged  = "/staged"
	stemProc    = "/proc"
	stemNull    = "/null"
)

// stem is a process in new namespaces that waits to become a container.
type stem struct {
	link   conn
	null   int // descriptor (O_PATH) of a null device
	procfs int // of a proc that nothing is masked in
	staged []stagedMount
	root   *inroot.Root // mounted ahead; nil: not
}

// stemMain is the stem's life. args: a folder to mount on while it prepares.
func stemMain(link conn, args []string) int {
	s := &stem{link: link}
	if err := s.prepare(args[0]); err != nil {
		return report(link, fmt.Errorf("preparing a stem: %w", err))
	}
	if err := link.send([]byte{tagPrepared}, nil); err != nil {
		return 1
	}
	for {
		body, fds, err := link.receive()
		if errors.Is(err, io.EOF) {
			return 0 // the runtime was closed
		}
		var plan containerPlan
		if err == nil {
			err = decode(body, &plan)
		}
		if err == nil && plan.MountOnly {
			if err = s.mountAhead(&plan.Root); err == nil {
				continue
			}
		}
		if err == nil {
			err = s.become(&plan, fds)
		}
		return report(link, err)
	}
}

// mountAhead mounts a root for the container to come.
func (s *stem) mountAhead(p *rootPlan) error {
	r, err := mountRoot(p, nil)
	if err != nil {
		return fmt.Errorf("mounting a root ahead: %w", err)
	}
	s.root = &r
	return s.link.send([]byte{tagPrepared}, nil)
}

// takeRoot is the root that the plan asks for.
func (s *stem) takeRoot(p *rootPlan, fds []int) (inroot.Root, error) {
	if p.Ahead && s.root != nil {
		return *s.root, nil
	}
	return mountRoot(p, fds)
}

// prepare does all that needs no plan.
func (s *stem) prepare(folder string) error {
	if err := hide(); err != nil {
		return err
	}
	unix.Umask(0)
	// The process is in its cgroup since its birth: that becomes the namespace's root.
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("unsharing the cgroup namespace: %w", err)
	}
	if err := ownRoot(folder); err != nil {
		return err
	}
	var err error
	if s.null, err = makeNull(); err != nil {
		return fmt.Errorf("making a null device: %w", err)
	}
	if s.procfs, err = mountAt("proc", "proc", nil, stemProc); err != nil {
		return fmt.Errorf("mounting proc: %w", err)
	}
	s.staged, err = stageAll(s.null)
	return err
}

// ownRoot makes a fresh tmpfs this namespace's root and lets go of all other mounts.
func ownRoot(folder string) error {
	private := unix.MountAttr{Propagation: unix.MS_PRIVATE}
	if err := unix.MountSetattr(unix.AT_FDCWD, "/", unix.AT_RECURSIVE, &private); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	fd, err := mountAt("tmpfs", "tmpfs", []string{"mode=0755"}, folder)
	if err != nil {
		return fmt.Errorf("mounting tmpfs on %s: %w", folder, err)
	}
	defer unix.Close(fd)
	if err := pivot(fd); err != nil {
		return fmt.Errorf("changing to a root of its own: %w", err)
	}
	for _, dir := range []string{stemRoot, stemImage, stemScratch, stemFiles, stemStaged, stemProc} {
		if err := unix.Mkdir(dir, 0o755); err != nil {
			return fmt.Errorf("making %s: %w", dir, err)
		}
	}
	return nil
}

// pivot makes the mount that fd is open on the root and detaches the old one.
func pivot(fd int) error {
	if err := unix.Fchdir(fd); err != nil {
		return err
	}
	// The old root ends up on top of the new one: pivot_root(2), "pivot_root(., .)".
	if err := unix.PivotRoot(".", "."); err != nil {
		return err
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return err
	}
	return unix.Chdir("/")
}

// mountAt mounts a new file system on a folder of the stem's and opens it (O_PATH).
func mountAt(fstype, source string, data []string, folder string) (int, error) {
	mount, err := newMount(fstype, source, data, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.MoveMount(mount, "", unix.AT_FDCWD, folder, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		unix.Close(mount)
		return -1, err
	}
	return mount, nil
}

func makeNull() (int, error) {
	if err := unix.Mknod(stemNull, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))); err != nil {
		return -1, err
	}
	return unix.Open(stemNull, unix.O_PATH|unix.O_CLOEXEC, 0)
}

// become carries the plan out; it returns only what went wrong.
func (s *stem) become(p *containerPlan, fds []int) error {
	if err := enterNamespaces(p.Join, p.Unshare, fds); err != nil {
		return err
	}
	if err := setNames(p.Hostname, p.Domainname); err != nil {
		return err
	}
	r, err := s.takeRoot(&p.Root, fds)
	if err != nil {
		return err
	}
	c := &setup{stem: s, plan: p, fds: fds, root: r}
	if err := c.build(); err != nil {
		return err
	}
	b := &becoming{link: s.link, plan: &p.Process, fds: fds, root: r, exe: exeFD}
	if err := b.settle(true); err != nil {
		return err
	}
	if err := c.finish(); err != nil {
		return err
	}
	return b.run()
}

// enterNamespaces joins by descriptor and unshares the rest.
func enterNamespaces(join []joinPlan, unshare uint64, fds []int) error {
	for _, j := range join {
		if err := unix.Setns(fds[j.FD], int(j.Type)); err != nil {
			return fmt.Errorf("joining the %s namespace: %w", namespaceName(j.Type), err)
		}
	}
	if unshare == 0 {
		return nil
	}
	if err := unix.Unshare(int(unshare)); err != nil {
		return fmt.Errorf("unsharing namespaces (%#x): %w", unshare, err)
	}
	if unshare&unix.CLONE_NEWNET != 0 {
		return loopbackUp()
	}
	return nil
}

// loopbackUp switches a new network namespace's loopback interface on.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("switching loopback on: %w", err)
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr); err != nil {
		return fmt.Errorf("switching loopback on: %w", err)
	}
	return nil
}

func setNames(host, domain string) error {
	if host != "" {
		if err := unix.Sethostname([]byte(host)); err != nil {
			return fmt.Errorf("setting hostname %q: %w", host, err)
		}
	}
	if domain != "" {
		if err := unix.Setdomainname([]byte(domain)); err != nil {
			return fmt.Errorf("setting domainname %q: %w", domain, err)
		}
	}
	return nil
}
