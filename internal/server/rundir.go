// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Occupancy is one daemon's hold on a folder for sockets: while it is held, no
// other daemon serves there.
type Occupancy struct {
	pid    *os.File // locked
	path   string
	socket string
}

// Occupy takes the folder of a pid file, or says which daemon has it.
func Occupy(pidFile string) (*Occupancy, error) {
	if err := os.MkdirAll(filepath.Dir(pidFile), 0o711); err != nil {
		return nil, fmt.Errorf("making the folder for sockets: %w", err)
	}
	for {
		f, err := os.OpenFile(pidFile, os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return nil, fmt.Errorf("opening the pid file: %w", err)
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			defer f.Close()
			if !errors.Is(err, unix.EWOULDBLOCK) {
				return nil, fmt.Errorf("locking the pid file %s: %w", pidFile, err)
			}
			return nil, fmt.Errorf("another daemon (pid %s) serves in %s; stop it, or choose another folder with --run-dir", readPID(f), filepath.Dir(pidFile))
		}
		if isStill(f, pidFile) {
			o := &Occupancy{pid: f, path: pidFile}
			return o, o.writePID()
		}
		_ = f.Close() // removed by a daemon that ended between open and lock: once more
	}
}

func readPID(f *os.File) string {
	text, _ := io.ReadAll(io.LimitReader(f, 16))
	return strings.TrimSpace(string(text))
}

func isStill(f *os.File, path string) bool {
	opened, err := f.Stat()
	if err != nil {
		return false
	}
	named, err := os.Stat(path)
	return err == nil && os.SameFile(opened, named)
}

func (o *Occupancy) writePID() error {
	if err := o.pid.Truncate(0); err != nil {
		return fmt.Errorf("writing the pid file: %w", err)
	}
	if _, err := o.pid.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0); err != nil {
		return fmt.Errorf("writing the pid file: %w", err)
	}
	return nil
}

// Listen makes the socket, for its owner alone from its first moment on, or with a gid other than -1 for
// that group as well. One that a killed daemon left is replaced; one that somebody answers on is refused.
func (o *Occupancy) Listen(socket string, gid int) (net.Listener, error) {
	if conn, err := net.DialTimeout("unix", socket, time.Second); err == nil {
		_ = conn.Close()
		return nil, fmt.Errorf("another daemon answers on %s", socket)
	}
	// Made in a closed folder and moved out of it: between bind and chmod nobody gets in. The
	// name is no longer than the final one (unix(7): 107 bytes).
	private, err := os.MkdirTemp(filepath.Dir(socket), "l")
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w", socket, err)
	}
	defer os.RemoveAll(private)
	first := filepath.Join(private, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: first, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w", socket, err)
	}
	l.SetUnlinkOnClose(false) // its name changes
	mode := os.FileMode(0o600)
	if gid >= 0 {
		mode = 0o660
	}
	if err := errors.Join(os.Lchown(first, -1, gid), os.Chmod(first, mode), os.Rename(first, socket)); err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("listening on %s: %w", socket, err)
	}
	o.socket = socket
	return l, nil
}

// Release removes socket and pid file and lets another daemon in.
func (o *Occupancy) Release() error {
	var errs []error
	for _, path := range []string{o.socket, o.path} {
		if path == "" {
			continue
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, o.pid.Close())...)
}
