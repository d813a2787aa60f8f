// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"errors"
	"fmt"
	goruntime "runtime"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/agent/inroot"
)

// becoming is the last part of the way to execve, the same for a container's first
// process and for one that joins: the thread is in its namespaces and the root
// is that of the container.
type becoming struct {
	link conn
	plan *processPlan
	fds  []int // that came with the plan
	root inroot.Root
	id   identity
	exe  int // descriptor of this very binary, to run as init
	term *terminal

	outside bool // of the working directory still: root may not enter it, the user perhaps may
}

// settle does what needs the root file system still writable: it allocates the
// terminal (bound to /dev/console for a container's first process), finds out who the user is and makes the working directory.
func (b *becoming) settle(console bool) error {
	if b.plan.Terminal {
		if err := b.openTerminal(console); err != nil {
			return err
		}
	}
	var err error
	if b.id, err = lookUpUser(b.root, b.plan); err != nil {
		return err
	}
	if !b.plan.MakeCwd {
		return nil
	}
	fd, err := b.root.Folder(b.plan.Cwd)
	if err != nil {
		return folderError(b.plan.Cwd, err)
	}
	return unix.Close(fd)
}

func (b *becoming) openTerminal(console bool) error {
	t, err := openTerminal(b.root, b.plan)
	if err != nil {
		return err
	}
	if console {
		if err := t.bindConsole(b.root); err != nil {
			return err
		}
	}
	b.term = &t
	defer unix.Close(t.master)
	if err := b.link.send([]byte{tagTerminal}, []int{t.master}); err != nil {
		return fmt.Errorf("sending the terminal to the agent: %w", err)
	}
	return nil
}

// run ends in execve and returns only what went wrong before.
func (b *becoming) run() error {
	steps := []func() error{
		b.standardStreams, b.limits, b.enterFolder, b.user, b.enterFolderAsUser,
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return b.exec()
}

// standardStreams starts a session and puts descriptors 0 to 2 in place, owned by the
// user so that /dev/stdout can be opened again.
func (b *becoming) standardStreams() error {
	if _, err := unix.Setsid(); err != nil && !errors.Is(err, unix.EPERM) { // EPERM: leads one already
		return fmt.Errorf("starting a session: %w", err)
	}
	if b.term != nil {
		if err := b.term.control(); err != nil {
			return err
		}
	}
	for i := range 3 {
		fd := b.stream(i)
		if err := unix.Dup3(fd, i, 0); err != nil {
			return fmt.Errorf("setting standard stream %d: %w", i, err)
		}
		if err := b.own(i); err != nil {
			return fmt.Errorf("giving standard stream %d to the user: %w", i, err)
		}
	}
	return nil
}

func (b *becoming) stream(i int) int {
	if b.term != nil {
		return b.term.slave
	}
	return b.fds[b.plan.Stdio[i]]
}

// own gives stream i to the user, except a device such as /dev/null, which is everybody's.
func (b *becoming) own(i int) error {
	var st unix.Stat_t
	if err := unix.Fstat(i, &st); err != nil {
		return err
	}
	if b.term == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR {
		return nil
	}
	if st.Uid == b.id.uid {
		return nil
	}
	// The group stays: tty for a terminal (mount option gid of devpts).
	return unix.Fchown(i, int(b.id.uid), -1)
}

// limits sets what takes privileges to set.
func (b *becoming) limits() error {
	if b.plan.SetPersona {
		if err := raw(unix.SYS_PERSONALITY, uintptr(b.plan.Personality), 0, 0); err != nil {
			return fmt.Errorf("setting personality %#x: %w", b.plan.Personality, err)
		}
	}
	for _, l := range b.plan.Rlimits {
		if err := unix.Prlimit(0, l.Resource, &unix.Rlimit{Cur: l.Soft, Max: l.Hard}, nil); err != nil {
			return fmt.Errorf("setting limit %d to %d (hard %d): %w", l.Resource, l.Soft, l.Hard, err)
		}
	}
	return b.restoreFileLimit()
}

// defaultFileLimit is how many files a process may open unless told otherwise: the kernel's own start value.
const defaultFileLimit = 1024

// restoreFileLimit undoes what Go does at the start of every program, raising the
// soft limit on open files to the hard one, unless the plan sets that limit.
func (b *becoming) restoreFileLimit() error {
	for _, l := range b.plan.Rlimits {
		if l.Resource == unix.RLIMIT_NOFILE {
			return nil
		}
	}
	var now unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &now); err != nil {
		return err
	}
	now.Cur = min(now.Max, defaultFileLimit)
	return unix.Prlimit(0, unix.RLIMIT_NOFILE, &now, nil)
}

// user changes to the user, with HOME set from its passwd entry where the environment has none.
func (b *becoming) user() error {
	unix.Umask(int(b.plan.Umask))
	if home, ok := lookupEnv(b.plan.Env, "HOME"); !ok || home == "" {
		b.plan.Env = append(b.plan.Env, "HOME="+b.id.home)
	}
	return becomeUser(b.id, b.plan)
}

// enterFolder enters the working directory as root, as Docker does: the user need
// not be able to. Where root may not (a network file system), the user tries.
func (b *becoming) enterFolder() error {
	err := b.changeFolder()
	b.outside = errors.Is(err, unix.EACCES)
	if b.outside {
		return nil
	}
	return err
}

func (b *becoming) enterFolderAsUser() error {
	if !b.outside {
		return nil
	}
	return b.changeFolder()
}

// changeFolder changes to the working directory and makes sure that it is in the container.
func (b *becoming) changeFolder() error {
	dir := b.plan.Cwd
	err := unix.Chdir(dir)
	if err == nil {
		_, err = getcwd()
	}
	if err != nil {
		return folderError(dir, err)
	}
	return nil
}

func folderError(dir string, err error) error {
	return fail(ErrWorkingDir, fmt.Errorf("chdir to cwd (%q) set in config.json failed: %w", dir, err))
}

// getcwd refuses a working directory that the root does not reach.
func getcwd() (string, error) {
	var buf [unix.PathMax]byte
	n, err := unix.Getcwd(buf[:])
	if err != nil {
		return "", err
	}
	dir := string(buf[:max(n-1, 0)])
	if !strings.HasPrefix(dir, "/") { // "(unreachable)/...", getcwd(2)
		return "", unix.ENOENT
	}
	return dir, nil
}

// exec looks the command up, tells the agent that all is ready, waits for its go
// (it sets the cgroup's limits meanwhile, which are for the command and not for
// us), and becomes the command.
func (b *becoming) exec() error {
	file, err := lookPath(b.plan.Args[0], b.plan.Env)
	if err != nil {
		return err
	}
	target, err := b.target(file)
	if err != nil {
		return err
	}
	if err := b.handshake(); err != nil {
		return err
	}
	// No descriptor but the standard streams (and init's link) crosses execve.
	if err := unix.CloseRange(3, 1<<31-1, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("marking descriptors close-on-exec: %w", err)
	}
	if b.plan.Init {
		if _, err := unix.FcntlInt(uintptr(b.link.fd), unix.F_SETFD, 0); err != nil {
			return fmt.Errorf("passing the link to init: %w", err)
		}
	}
	heedSignals()
	beforeExec(target)
	if err := restrict(b.plan); err != nil {
		return err
	}
	return execError(file, target.exec())
}

// handshake says that only execve is left, and waits until the agent agrees.
func (b *becoming) handshake() error {
	if err := b.link.send([]byte{tagReady}, nil); err != nil {
		return fmt.Errorf("telling the agent: %w", err)
	}
	_, fds, err := b.link.receive()
	closeAll(fds)
	if err != nil {
		return fmt.Errorf("waiting for the agent: %w", err)
	}
	return nil
}

// image is what execve takes, made before seccomp: nothing is allocated after it.
type image struct {
	exe        int // binary to execute instead of path, or -1
	path       *byte
	argv, envv []*byte
}

func (b *becoming) target(file string) (*image, error) {
	im := &image{exe: -1}
	args := b.plan.Args
	if b.plan.Init {
		args = append([]string{initName, file}, args...)
		im.exe, file = b.exe, ""
	}
	var err error
	if im.path, err = unix.BytePtrFromString(file); err != nil {
		return nil, invalid("command %q has a zero byte", file)
	}
	if im.argv, err = syscall.SlicePtrFromStrings(args); err != nil {
		return nil, invalid("an argument of %q has a zero byte", b.plan.Args[0])
	}
	if im.envv, err = syscall.SlicePtrFromStrings(b.plan.Env); err != nil {
		return nil, invalid("the environment of %q has a zero byte", b.plan.Args[0])
	}
	return im, nil
}

// exec is execve on this thread; it returns only on failure. Not execveat where execve will do:
// a seccomp profile may know the one and not the other.
func (im *image) exec() error {
	path, argv, envv := uintptr(unsafe.Pointer(im.path)), uintptr(unsafe.Pointer(&im.argv[0])), uintptr(unsafe.Pointer(&im.envv[0]))
	var errno unix.Errno
	if im.exe < 0 {
		_, _, errno = syscall.RawSyscall6(unix.SYS_EXECVE, path, argv, envv, 0, 0, 0)
	} else {
		_, _, errno = syscall.RawSyscall6(unix.SYS_EXECVEAT, uintptr(im.exe), path, argv, envv, unix.AT_EMPTY_PATH, 0)
	}
	goruntime.KeepAlive(im)
	return errno
}

// writeAt writes a small file below dir in one call.
func writeAt(dir int, name, value string) error {
	fd, err := unix.Openat2(dir, name, &unix.OpenHow{Flags: unix.O_WRONLY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH})
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte(value))
	return err
}
