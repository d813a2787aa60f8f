// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"errors"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// initMain is PID 1 of a container with Init: it starts the command (args: its
// file, then its arguments), passes signals on to it, reaps every process that
// ends up below it, and ends as the command did. It runs as the container's
// user, with the container's capabilities and seccomp filter.
func initMain(link conn, args []string) int {
	unix.CloseOnExec(link.fd)
	signals := make(chan os.Signal, 128)
	signal.Notify(signals) // all that can be caught
	command, err := startCommand(args[0], args[1:])
	if err != nil {
		return report(link, execError(args[0], err))
	}
	link.close() // the agent's Start returns now
	for sig := range signals {
		switch sig {
		case unix.SIGURG: // Go's own runtime sends it to itself all the time, and by default it does nothing
		case unix.SIGCHLD:
			if code, ended := reapAll(command); ended {
				return code
			}
		default:
			_ = unix.Kill(command, sig.(syscall.Signal))
		}
	}
	return 1 // not reached: the channel is never closed
}

// environ is the environment that init hands on.
var environ = os.Environ

// startCommand starts the command in a process group of its own, in the foreground of the terminal if there is one.
func startCommand(file string, argv []string) (int, error) {
	attr := syscall.SysProcAttr{Setpgid: true}
	if _, err := unix.IoctlGetTermios(0, unix.TCGETS); err == nil {
		attr.Foreground, attr.Ctty = true, 0
	}
	return syscall.ForkExec(file, argv, &syscall.ProcAttr{
		Env:   environ(),
		Files: []uintptr{0, 1, 2},
		Sys:   &attr,
	})
}

// reapAll takes every exit there is and tells whether the command's was among them, and its code.
func reapAll(command int) (code int, ended bool) {
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, unix.WNOHANG, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return code, ended
		}
		if pid != command {
			continue
		}
		ended, code = true, ws.ExitStatus()
		if ws.Signaled() {
			code = 128 + int(ws.Signal())
		}
	}
}
