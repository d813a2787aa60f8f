// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"fmt"
	"os"
	goruntime "runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Names (argv[0]) under which the agent's binary runs as one of the runtime's own processes.
const (
	stemName = "micropod-stem" // + folder: waits to become a container
	joinName = "micropod-join" // enters a container to become a further process
	initName = "micropod-init" // + file, command...: PID 1 of a container above its command
)

// Descriptors that such a process starts with, beside 0 to 2.
const (
	linkFD = 3 // its end of the conn
	exeFD  = 4 // this very binary (O_PATH, on a read-only mount); not for init
)

// What the child says first in each of its messages.
const (
	tagPrepared byte = iota + 1 // the stem is ready to get its plan
	tagTerminal                 // with a descriptor: the terminal's master
	tagReady                    // only execve is left
	tagError                    // then a StartError; nothing follows
)

// The thread that runs main must be the process's first for all of a child's life:
// namespaces and credentials belong to threads, and others look a process up by its first.
func init() {
	if isChild() {
		goruntime.LockOSThread()
	}
}

func isChild() bool {
	return len(os.Args) > 0 && (os.Args[0] == stemName || os.Args[0] == joinName || os.Args[0] == initName)
}

// Child must be the first thing that main calls. Where the process was started
// by this package, it does that process's work and never returns; else it
// returns at once.
func Child() {
	if !isChild() {
		return
	}
	code := 1
	switch os.Args[0] {
	case stemName:
		code = stemMain(conn{linkFD}, os.Args[1:])
	case joinName:
		code = joinMain(conn{linkFD})
	case initName:
		code = initMain(conn{linkFD}, os.Args[1:])
	}
	beforeExec(nil)
	syscall.Exit(code)
}

// beforeExec is called with the image before a child executes it, with nil before it ends.
// It does nothing but in a binary that counts coverage, which execve would lose.
var beforeExec = func(*image) {}

// hide keeps other processes from looking into this one by ptrace or /proc while it
// is in the container and not yet of it; execve ends that.
func hide() error {
	unix.CloseOnExec(linkFD)
	unix.CloseOnExec(exeFD)
	if err := prctl(unix.PR_SET_DUMPABLE, 0, 0); err != nil {
		return fmt.Errorf("hiding the process: %w", err)
	}
	return nil
}

// report tells the agent what went wrong. If the agent is gone there is nobody to tell.
func report(link conn, err error) int {
	var c codec
	fail(nil, err).wire(&c)
	_ = link.send(append([]byte{tagError}, c.buf...), nil)
	return 1
}
