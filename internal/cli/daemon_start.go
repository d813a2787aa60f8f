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
	daemonLogTail    = 2 << 10
)

// startDaemon starts micropodd in a session and cgroup of its own and returns when it
// listens. Of several command lines at once one starts it; the others wait.
func startDaemon(ctx context.Context, c *config.Config, notes io.Writer) error {
	if err := os.MkdirAll(c.RunDir, 0o711); err != nil {
		return &daemonError{err: fmt.Errorf("creating %s: %w", c.RunDir, err), hint: "run as root, or choose another folder with MICROPOD_RUN_DIR"}
	}
	unlock, err := lockFile(filepath.Join(c.RunDir, "micropodd.lock"))
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
	log := filepath.Join(c.RunDir, "micropodd.log")
	command, err := spawnDaemon(binary, log, c)
	if err != nil {
		return &daemonError{err: fmt.Errorf("starting %s: %w", binary, err)}
	}
	return awaitDaemon(ctx, command, c.Socket(), log, notes)
}

func lockFile(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the daemon's lock: %w", err)
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
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
			err:  errors.New("no daemon runs, and micropodd is neither beside micropod nor in PATH"),
			hint: "install micropodd beside micropod",
		}
	}
	return path, nil
}

func spawnDaemon(binary, logPath string, c *config.Config) (*exec.Cmd, error) {
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	command := exec.Command(binary, c.DaemonArgs()...)
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

// awaitDaemon returns when the daemon listens, or with its last words when it ended.
func awaitDaemon(ctx context.Context, command *exec.Cmd, socket, log string, notes io.Writer) error {
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	limit := time.NewTimer(daemonStartLimit)
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
			fmt.Fprintln(notes, "starting micropodd ...")
		case err := <-ended:
			return &daemonError{
				err:  fmt.Errorf("micropodd ended at once (%v)%s", err, lastWords(log)),
				hint: "its log is " + log,
			}
		case <-limit.C:
			return &daemonError{
				err:  fmt.Errorf("micropodd does not listen on %s after %s%s", socket, daemonStartLimit, lastWords(log)),
				hint: "its log is " + log,
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// lastWords quotes the end of the daemon's log.
func lastWords(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > daemonLogTail {
		_, _ = f.Seek(-daemonLogTail, io.SeekEnd)
	}
	tail, _ := io.ReadAll(io.LimitReader(f, daemonLogTail))
	lines := strings.Split(strings.TrimSpace(string(tail)), "\n")
	if last := lines[len(lines)-1]; last != "" {
		return ": " + last
	}
	return ""
}
