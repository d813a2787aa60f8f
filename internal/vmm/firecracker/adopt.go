// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package firecracker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/vmm"
	"github.com/micropod/micropod/internal/vmm/process"
)

// Adopt takes over a machine that an earlier process started, see vmm.Engine.
func (e *Engine) Adopt(ctx context.Context, r vmm.Record) (vmm.Machine, error) {
	if r.Engine != Name {
		return nil, fmt.Errorf("machine %s belongs to engine %s", r.ID, r.Engine)
	}
	m := newMachine(e, r)
	m.cgroup = process.LoadCgroup(r.Cgroup)
	m.limited.Store(true) // perhaps, by an earlier daemon
	err := m.adopt(ctx)
	if errors.Is(err, vmm.ErrGone) {
		return nil, errors.Join(err, m.removeRemains(ctx))
	}
	if err != nil {
		return nil, fmt.Errorf("adopting machine %s: %w", r.ID, err)
	}
	go m.supervise()
	return m, nil
}

// adopt takes hold of the process, its output and the guest's side.
func (m *machine) adopt(ctx context.Context) (err error) {
	boot, err := process.BootID()
	if err != nil {
		return err
	}
	if boot != m.record.BootID {
		return vmm.ErrGone
	}
	if m.process, err = process.Find(ctx, m.record.PID, m.record.StartTime); err != nil {
		return err
	}
	var undos []func() error
	defer func() {
		if err != nil {
			m.process.Stop()
			for _, undo := range undos {
				err = errors.Join(err, undo())
			}
			err = m.explain(err)
		}
	}()
	limit := cmp.Or(m.record.Config.ConsoleBytes, vmm.DefaultConsoleBytes)
	if m.console, err = m.process.AdoptRing(consoleName, consoleRing, process.Log{Path: m.path(consoleFile), Limit: limit}); err != nil {
		return err
	}
	undos = append(undos, m.console.Close)
	if m.output, err = m.process.AdoptRing(outputName, outputRing, process.Log{Path: m.path(outputFile), Limit: outputBytes}); err != nil {
		return err
	}
	undos = append(undos, m.output.Close)
	if err := m.openPipes(); err != nil {
		return err
	}
	undos = append(undos, m.closePipes)
	m.api = newAPI(m.inside(apiSocket))
	return m.listenGuest()
}

// removeRemains removes what an ended machine leaves on the host, also one whose VMM was started by a
// daemon that died before it could tell: its processes are those of its cgroup.
func (m *machine) removeRemains(ctx context.Context) error {
	if err := m.endStrays(ctx); err != nil {
		return err
	}
	return errors.Join(m.cgroup.Delete(), m.removeFiles(), m.removeSlots())
}

// removeSlots removes the links of an unjailed machine of which the drives are not known.
func (m *machine) removeSlots() error {
	if len(m.record.Config.Drives) > 0 {
		return nil
	}
	links, err := filepath.Glob(m.path("drive[0-9]*"))
	for _, link := range links {
		err = errors.Join(err, os.Remove(link))
	}
	return err
}

// endStrays kills what is in the machine's cgroup and waits for its end.
func (m *machine) endStrays(ctx context.Context) error {
	if m.record.Cgroup == "" {
		return nil
	}
	lists, err := filepath.Glob("/sys/fs/cgroup/pids" + m.record.Cgroup + "/cgroup.procs")
	if err != nil {
		return err
	}
	for _, list := range append(lists, "/sys/fs/cgroup"+m.record.Cgroup+"/cgroup.procs") {
		text, err := os.ReadFile(list)
		if err != nil {
			continue // there is none of that version
		}
		for _, field := range strings.Fields(string(text)) {
			pid, err := strconv.Atoi(field)
			if err != nil || pid <= 1 || pid == os.Getpid() {
				continue
			}
			m.logger.Warn("ending a VMM that nobody knows", "pid", pid)
			if err := endProcess(ctx, pid); err != nil {
				return err
			}
		}
	}
	return nil
}

// endProcess holds the process before it looks whether it is the one.
func endProcess(ctx context.Context, pid int) error {
	start, err := process.StartTime(pid)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	p, err := process.Find(ctx, pid, start)
	if errors.Is(err, vmm.ErrGone) {
		return nil
	}
	if err != nil {
		return err
	}
	defer p.Stop()
	return p.Kill(ctx)
}
