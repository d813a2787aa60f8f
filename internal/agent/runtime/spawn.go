// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	goruntime "runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/agent/reap"
)

// child is a process of the agent's own binary on its way to a container's process.
type child struct {
	*reap.Child
	link  conn
	group *cgroup // the container's; the stem's own until it becomes one
	ahead RootFS  // of a stem: the root that is mounted ahead; the zero value: none
}

// ownBinary is what children run; tests may have another.
var ownBinary = "/proc/self/exe"

// openBinary opens the agent's binary (O_PATH) by a detached read-only mount of its
// own: /proc/PID/exe of a process that runs it cannot be opened for writing, whoever asks.
func openBinary() (*os.File, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, ownBinary, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("opening the agent's own binary: %w", err)
	}
	if err := setAttr(fd, unix.MOUNT_ATTR_RDONLY, unix.MOUNT_ATTR_NOEXEC, false); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("making the agent's own binary read-only: %w", err)
	}
	return os.NewFile(uintptr(fd), ownBinary), nil
}

// childEnv is the environment of stems and joiners: short-lived, with little
// memory in use, so collecting garbage is only work and threads.
func childEnv() []string {
	env := []string{"GOGC=off", "GOMAXPROCS=1", "GODEBUG=asyncpreemptoff=1"}
	if dir, ok := os.LookupEnv("GOCOVERDIR"); ok {
		env = append(env, "GOCOVERDIR="+dir)
	}
	return env
}

// spawn starts the binary as one of the runtime's own processes, in group from
// its first moment. flags are CLONE_NEW*; pidNS, if not nil, is the pid namespace it is born into.
func (r *Runtime) spawn(argv []string, flags uintptr, group *cgroup, pidNS *os.File) (*child, error) {
	ours, theirs, err := newConn()
	if err != nil {
		return nil, err
	}
	defer theirs.close()
	attr := syscall.ProcAttr{
		Dir:   "/",
		Env:   childEnv(),
		Files: []uintptr{r.null.Fd(), r.null.Fd(), 2, uintptr(theirs.fd), r.exe.Fd()},
		Sys:   &syscall.SysProcAttr{Cloneflags: flags, UseCgroupFD: true, CgroupFD: int(group.dir.Fd())},
	}
	fork := func() (int, error) { return syscall.ForkExec(procPath(int(r.exe.Fd())), argv, &attr) }
	if pidNS != nil {
		fork = inPIDNamespace(pidNS, fork)
	}
	process, err := r.config.Reaper.Start(fork)
	if err != nil {
		ours.close()
		return nil, fmt.Errorf("starting %s: %w", argv[0], err)
	}
	return &child{Child: process, link: ours, group: group}, nil
}

// inPIDNamespace runs fork on a thread whose children are born into ns. The thread ends
// with the goroutine, never going back to Go's scheduler.
func inPIDNamespace(ns *os.File, fork func() (int, error)) func() (int, error) {
	type result struct {
		pid int
		err error
	}
	return func() (int, error) {
		done := make(chan result)
		go func() {
			goruntime.LockOSThread()
			if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWPID); err != nil {
				done <- result{err: fmt.Errorf("joining the pid namespace: %w", err)}
				return
			}
			pid, err := fork()
			done <- result{pid, err}
		}()
		r := <-done
		return r.pid, r.err
	}
}

// kill ends the child and lets go of it. The cgroup stays.
func (c *child) kill() {
	_ = c.Signal(unix.SIGKILL)
	<-c.Done()
	c.link.close()
}

// abandon ends a stem that is not needed, with its cgroup.
func (c *child) abandon() {
	c.kill()
	_ = c.group.remove()
}

// events are what a child tells on its way.
type events struct {
	terminal *os.File // master, when it has one
}

// follow takes the child's messages until it says tag, or fails. The end of ctx kills the child.
func (c *child) follow(ctx context.Context, tag byte, e *events) error {
	stop := context.AfterFunc(ctx, func() { _ = c.Signal(unix.SIGKILL) })
	defer stop()
	for {
		got, err := c.next(e)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return err
		}
		if got == tag {
			return nil
		}
	}
}

// next takes one message. io.EOF: the child executed the command, or died.
func (c *child) next(e *events) (byte, error) {
	body, fds, err := c.link.receive()
	if err != nil {
		return 0, err
	}
	if len(body) == 0 {
		closeAll(fds)
		return 0, errors.New("empty message from a child")
	}
	switch tag := body[0]; {
	case tag == tagTerminal && len(fds) == 1:
		e.terminal = newPipeFile(fds[0], "terminal")
	case tag == tagError:
		closeAll(fds)
		var failure StartError
		if err := decode(body[1:], &failure); err != nil {
			return 0, err
		}
		return 0, &failure
	default:
		closeAll(fds)
	}
	return body[0], nil
}

// launch sends the plan and sees the child through to execve. limit is called when
// only that is left. On an error the child is dead.
func (c *child) launch(ctx context.Context, plan message, fds []int, limit func(pid int) error) (e events, err error) {
	defer func() {
		if err != nil {
			c.kill()
			if e.terminal != nil {
				e.terminal.Close()
			}
		}
	}()
	// A child that died is told by what it said before, not by the broken pipe.
	sent := c.link.send(encode(plan), fds)
	if err := c.follow(ctx, tagReady, &e); err != nil {
		return e, c.gone(errors.Join(err, sent))
	}
	if err := limit(c.Pid()); err != nil {
		return e, err
	}
	if err := c.link.send([]byte{0}, nil); err != nil {
		return e, c.gone(err)
	}
	if err := c.follow(ctx, 0, &e); !errors.Is(err, io.EOF) {
		return e, err
	}
	c.link.close()
	return e, nil
}

// gone explains an end of the link that no message came before.
func (c *child) gone(err error) error {
	var told *StartError
	if errors.As(err, &told) || !errors.Is(err, io.EOF) {
		return err
	}
	_ = c.Signal(unix.SIGKILL) // dying already
	<-c.Done()
	return fmt.Errorf("the container's process died while it was set up (code %d)", c.Status().Code)
}
