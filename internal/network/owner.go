// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// portOwner finds a process that has the port open, in the thread's namespace; 0 when
// nobody can be found. It reads all processes' descriptors: for error messages only.
func portOwner(p Port) (pid int, name string) {
	sockets := map[string]bool{}
	for _, family := range []string{"", "6"} {
		socketsAt("/proc/thread-self/net/"+p.Protocol+family, p, sockets)
	}
	if len(sockets) == 0 {
		return 0, ""
	}
	descriptors, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, d := range descriptors {
		if to, err := os.Readlink(d); err == nil && sockets[to] {
			process := filepath.Dir(filepath.Dir(d))
			pid, _ = strconv.Atoi(filepath.Base(process))
			comm, _ := os.ReadFile(filepath.Join(process, "comm"))
			return pid, strings.TrimSpace(string(comm))
		}
	}
	return 0, ""
}

// listening is TCP_LISTEN, and 7 is what UDP shows for sockets without a peer
// (net/tcp_states.h, TCP_CLOSE).
var listening = map[string]string{"tcp": "0A", "udp": "07"}

// socketsAt adds the links of sockets on the port as descriptors show them, from one of
// /proc/net/{tcp,udp}[6] (proc(5)): the second field is ADDRESS:PORT in hex, the fourth the
// state, the tenth the inode.
func socketsAt(table string, p Port, sockets map[string]bool) {
	f, err := os.Open(table)
	if err != nil {
		return
	}
	defer f.Close()
	suffix := fmt.Sprintf(":%04X", p.HostPort)
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) > 9 && strings.HasSuffix(fields[1], suffix) && fields[3] == listening[p.Protocol] {
			sockets["socket:["+fields[9]+"]"] = true
		}
	}
}
