// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/config"
)

const (
	// daemonStartLimit bounds the wait for a new daemon's socket. Adopting many
	// machines takes a while on a slow disk.
	daemonStartLimit = 30 * time.Second
	daemonPoll       = 5 * time.Millisecond
	lockPoll         = 20 * time.Millisecond
	daemonLogTail    = 2 << 10
)

// daemonStart starts micropodd in a session and cgroup of its own.
type daemonStart struct {
	config *config.Config
	notes  io.Writer     // told when it takes a while
	limit  time.Duration // how long it may take to listen
	log    daemonLog
}

// run returns when the daemon listens. Of several command lines at once one starts it; the others wait.
func (s *daemonStart) run(ctx context.Context) error {
	c := s.config
	if err := os.MkdirAll(c.RunDir, 0o711); err != nil {
		return &daemonError{err: fmt.Errorf("creating %s: %w", c.RunDir, err), hint: "run as root, or choose another folder with MICROPOD_RUN_DIR"}
	}
	unlock, err := lockFile(ctx, filepath.Join(c.RunDir, "micropodd.lock"))
	if err != nil {
		return &daemonError{err: err, hint: "run as root, or choose another folder with MICROPOD_RUN_DIR"}
	}
	defer unlock()
	if probeSocket(c.Socket()) == nil {
		return nil // another command line was faster
	}
	binary, err := daemonBinary()
	if err != nil {
		return err
	}
	command, err := s.spawn(binary)
	if err != nil {
		return &daemonError{err: fmt.Errorf("starting %s: %w", binary, err)}
	}
	return s.await(ctx, command)
}

// lockFile waits for an exclusive lock.
func lockFile(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the daemon's lock: %w", err)
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EWOULDBLOCK) {
			break
		}
		select {
		case <-time.After(lockPoll):
		case <-ctx.Done():
			_ = f.Close()
			return nil, ctx.Err()
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("locking %s: %w", path, err)
	}
	return func() { _ = f.Close() }, nil
}

// daemonBinary is micropodd beside this command, or else in PATH.
func daemonBinary() (string, error) {
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), "micropodd")
		if unix.Access(beside, unix.X_OK) == nil {
			return beside, nil
		}
	}
	path, err := exec.LookPath("micropodd")
	if err != nil {
		return "", &daemonError{
			err:  errors.New("micropodd is neither beside micropod nor in PATH"),
			hint: "install micropodd beside micropod",
		}
	}
	return path, nil
}

func (s *daemonStart) spawn(binary string) (*exec.Cmd, error) {
	s.log.path = filepath.Join(s.config.RunDir, "micropodd.log")
	log, err := os.OpenFile(s.log.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	if s.log.before, err = log.Seek(0, io.SeekEnd); err != nil {
		return nil, err
	}
	command := exec.Command(binary, s.config.DaemonArgs()...)
	command.Dir = "/"
	command.Stdout, command.Stderr = log, log
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if cgroup := daemonCgroup(); cgroup != nil {
		defer cgroup.Close()
		command.SysProcAttr.UseCgroupFD = true
		command.SysProcAttr.CgroupFD = int(cgroup.Fd())
	}
	return command, command.Start()
}

// daemonCgroup is a cgroup that outlives the user's session, where the host has
// cgroup v2 and we may make one; nil otherwise.
func daemonCgroup() *os.File {
	var fs unix.Statfs_t
	const root = "/sys/fs/cgroup"
	if unix.Statfs(root, &fs) != nil || fs.Type != unix.CGROUP2_SUPER_MAGIC {
		return nil
	}
	path := filepath.Join(root, "micropodd")
	if err := os.Mkdir(path, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	return f
}

// await returns when the daemon listens, or with its last words when it ended.
func (s *daemonStart) await(ctx context.Context, command *exec.Cmd) error {
	socket := s.config.Socket()
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	limit := time.NewTimer(s.limit)
	defer limit.Stop()
	slow := time.NewTimer(time.Second)
	defer slow.Stop()
	poll := time.NewTicker(daemonPoll)
	defer poll.Stop()
	for {
		select {
		case <-poll.C:
			if probeSocket(socket) == nil {
				return nil
			}
		case <-slow.C:
			fmt.Fprintln(s.notes, "starting micropodd ...")
		case err := <-ended:
			return &daemonError{
				err:  fmt.Errorf("micropodd ended at once (%v)%s", err, s.log.lastWords()),
				hint: "its log is " + s.log.path,
			}
		case <-limit.C:
			return &daemonError{
				err:  fmt.Errorf("micropodd does not listen on %s after %s%s", socket, s.limit, s.log.lastWords()),
				hint: "its log is " + s.log.path,
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// daemonLog is where a daemon that we start writes, behind those before it.
type daemonLog struct {
	path   string
	before int64 // bytes of earlier ones
}

// lastWords quotes the end of what this daemon wrote.
func (l daemonLog) lastWords() string {
	f, err := os.Open(l.path)
	if err != nil {
		return ""
	}
	defer f.Close()
	from := l.before
	if info, err := f.Stat(); err == nil {
		from = max(from, info.Size()-daemonLogTail)
	}
	tail, _ := io.ReadAll(io.NewSectionReader(f, from, daemonLogTail))
	lines := strings.Split(strings.TrimSpace(string(tail)), "\n")
	if last := lines[len(lines)-1]; last != "" {
		return ": " + last
	}
	return ""
}
