// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build cover

package runtime

import (
	"bytes"
	"fmt"
	"os"
	"runtime/coverage"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A binary built with coverage counters writes them when it ends; a child ends in execve.
// So it writes them just before, to the folder that GOCOVERDIR names, which it opens at
// its start: later another root is in the way. Init gets the folder as a descriptor.
func init() {
	name, ok := os.LookupEnv("GOCOVERDIR")
	if !isChild() || !ok {
		return
	}
	dir, err := unix.Open(name, unix.O_DIRECTORY|unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	_ = unix.Fchmod(dir, 0o777) // for a container's user; init, which is one, need not
	if os.Args[0] == initName {
		environ = func() []string { // not the command's business
			return slices.DeleteFunc(os.Environ(), func(v string) bool { return v == "GOCOVERDIR="+name })
		}
		_ = unix.CloseRange(linkFD, 1<<31-1, unix.CLOSE_RANGE_CLOEXEC)
	}
	beforeExec = func(im *image) {
		saveCounters(dir)
		if im != nil && im.exe >= 0 {
			im.passFolder(dir)
		}
	}
}

// passFolder names dir in the environment of init.
func (im *image) passFolder(dir int) {
	variable, err := syscall.BytePtrFromString("GOCOVERDIR=" + procPath(dir))
	if err != nil {
		return
	}
	_, _ = unix.FcntlInt(uintptr(dir), unix.F_SETFD, 0)
	im.envv = append([]*byte{variable}, im.envv...) // a nil ends the list
}

func saveCounters(dir int) {
	var meta, counters bytes.Buffer
	if coverage.WriteMeta(&meta) != nil || coverage.WriteCounters(&counters) != nil {
		return
	}
	// The file's name has the hash that the header of the metadata tells (internal/coverage, MetaFileHeader).
	name := fmt.Sprintf("covcounters.%x.%d.%d", meta.Bytes()[24:40], os.Getpid(), time.Now().UnixNano())
	fd, err := unix.Openat(dir, "tmp."+name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o666)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	// A reader takes no file of this name for one of counters, until it is whole.
	if n, err := unix.Write(fd, counters.Bytes()); err == nil && n == counters.Len() {
		_ = unix.Renameat(dir, "tmp."+name, dir, name)
	}
}
