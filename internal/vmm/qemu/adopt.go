// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/micropod/micropod/internal/vmm"
	"github.com/micropod/micropod/internal/vmm/process"
)

// lookAfter is how long an adopted machine's status is not asked for: QEMU takes commands byte by byte, and of many
// machines that are adopted at once each has more urgent things to do. A guest that has ended ends its QEMU by itself, mostly.
const lookAfter = time.Second

// Adopt takes over a machine that an earlier process started, see vmm.Engine. A
// QEMU that does not answer yet is adopted all the same: it can be waited for and
// killed, and QMP is tried again.
func (e *Engine) Adopt(ctx context.Context, r vmm.Record) (vmm.Machine, error) {
	if r.Engine != Name {
		return nil, fmt.Errorf("machine %s belongs to engine %s", r.ID, r.Engine)
	}
	m := newMachine(e.log, r)
	m.cgroup = process.LoadCgroup(r.Cgroup)
	err := m.adopt(ctx)
	if errors.Is(err, vmm.ErrGone) {
		return nil, errors.Join(err, removeRemains(r, m.cgroup))
	}
	if err != nil {
		return nil, fmt.Errorf("adopting machine %s: %w", r.ID, err)
	}
	ctx, cancel := context.WithTimeout(ctx, redialEvery)
	defer cancel()
	if err := m.connect(ctx); err != nil {
		m.log.Warn("adopted machine does not answer yet", "error", err)
	}
	time.AfterFunc(lookAfter, func() { notify(m.attention, struct{}{}) }) // its guest may have ended meanwhile
	go m.supervise()
	return m, nil
}

// adopt takes hold of the process and its output.
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
	limit := cmp.Or(m.record.Config.ConsoleBytes, vmm.DefaultConsoleBytes)
	if m.console, err = m.process.AdoptRing(consoleName, consoleRing, process.Log{Path: m.path(consoleFile), Limit: limit}); err != nil {
		m.process.Stop()
		return m.explain(err)
	}
	if m.output, err = m.process.AdoptRing(outputName, outputRing, process.Log{Path: m.outputPath(), Limit: outputBytes}); err != nil {
		m.console.Close()
		m.process.Stop()
		return m.explain(err)
	}
	return nil
}
