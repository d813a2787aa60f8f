// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Finding is something that should not be so.
type Finding struct {
	Object  string // such as "folder /run/micropod/machines/1a2b"
	Problem string
	Mend    string // what a user can do where Repair is nil
	// Repair mends it, as a start of the daemon would; nil: it cannot.
	Repair func(ctx context.Context) error
}

// secondLook is the time after which a finding is looked for again: what is being made or removed is none.
const secondLook = 200 * time.Millisecond

// Check looks for what a start of the daemon would find and mend: folders and VMMs of no machine, records that are
// lost or cannot be read, machines that could not be judged. It changes nothing.
func (s *Service) Check(ctx context.Context) ([]Finding, error) {
	return Confirmed(ctx, s.look)
}

// Confirmed keeps those findings of look that a second look finds too.
func Confirmed(ctx context.Context, look func() ([]Finding, error)) ([]Finding, error) {
	first, err := look()
	if err != nil || len(first) == 0 {
		return nil, err
	}
	sleep(ctx, secondLook)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	again, err := look()
	if err != nil {
		return nil, err
	}
	seen := make(map[string]bool, len(first))
	for _, f := range first {
		seen[f.Object+f.Problem] = true
	}
	var both []Finding
	for _, f := range again {
		if seen[f.Object+f.Problem] {
			both = append(both, f)
		}
	}
	return both, nil
}

func (s *Service) look() ([]Finding, error) {
	stored, unreadable, err := s.records.All()
	if err != nil {
		return nil, err
	}
	var all []Finding
	for _, u := range unreadable {
		all = append(all, Finding{
			Object: "machine " + u.Key, Problem: "its record cannot be read: " + u.Err.Error(), Mend: "remove it by force: micropod vm rm -f " + u.Key,
		})
	}
	for _, m := range s.all() {
		if m.hidden {
			continue // it has none
		}
		rec := m.record()
		if _, ok := stored[m.id]; !ok && rec.State != Unknown && rec.State != Creating {
			all = append(all, Finding{Object: "machine " + m.id, Problem: "the database has lost its record", Repair: m.storeAgain})
		}
		if rec.State == Unknown && ok(stored, m.id) {
			all = append(all, Finding{Object: "machine " + m.id, Problem: "it could not be judged: " + rec.Reason, Repair: m.judgeAgain})
		}
	}
	return append(append(all, s.strayFolders()...), s.strayVMMs()...), nil
}

func ok[T any](m map[string]T, key string) bool {
	_, there := m[key]
	return there
}

func (m *machine) storeAgain(ctx context.Context) error {
	_, end, err := m.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	return m.note(func(*record) {})
}

// judgeAgain adopts a machine by its record, as the next start of the daemon would.
func (m *machine) judgeAgain(ctx context.Context) error {
	rec, err := m.s.records.Get(m.id)
	if err != nil {
		return err
	}
	m.mu.Lock()
	if m.rec.State != Unknown || m.run != nil {
		m.mu.Unlock()
		return nil
	}
	m.rec = rec
	m.mu.Unlock()
	if err := m.adopt(); err != nil {
		return err
	}
	if rec := m.record(); rec.State == Unknown {
		return errors.New(rec.Reason)
	}
	return ctx.Err()
}

func (s *Service) known(id string) bool {
	for _, m := range s.all() {
		if slices.Contains(m.names(), id) {
			return true
		}
	}
	return false
}

// parents are the folders below which each machine has one, named by its id.
func (s *Service) parents() []string {
	return []string{filepath.Dir(s.runDir("x")), filepath.Dir(s.diskDir("x"))}
}

// strayFolders are what a Delete or a Create was about to remove when a daemon died.
func (s *Service) strayFolders() (all []Finding) {
	for _, parent := range s.parents() {
		entries, err := os.ReadDir(parent)
		if err != nil {
			continue // not there yet
		}
		for _, e := range entries {
			if id := e.Name(); !s.known(id) {
				dir := filepath.Join(parent, id)
				all = append(all, Finding{Object: "folder " + dir, Problem: "it belongs to no machine", Repair: func(ctx context.Context) error {
					return errors.Join(s.clear(ctx, id), os.RemoveAll(dir))
				}})
			}
		}
	}
	return all
}

// strayVMMs are processes under the uids for machines that hold files of ours open, be those removed or not,
// and belong to no machine that we know.
func (s *Service) strayVMMs() (all []Finding) {
	if s.UIDCount == 0 {
		return nil // whose processes are whose cannot be told
	}
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range processes {
		pid, err := strconv.Atoi(filepath.Base(p))
		if err != nil || !s.ours(pid) {
			continue
		}
		if id := s.machineOf(pid); id != "" && !s.known(id) {
			all = append(all, Finding{Object: fmt.Sprintf("process %d", pid), Problem: "it is the VMM of machine " + id + ", which is not known",
				Repair: func(context.Context) error { return s.endUnknown(pid) }})
		}
	}
	return all
}

// machineOf tells by a process's open files whose it is; empty when it is nobody's of ours.
func (s *Service) machineOf(pid int) string {
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, l := range links {
		target, err := os.Readlink(l)
		if err != nil {
			continue
		}
		for _, parent := range s.parents() {
			if rest, found := strings.CutPrefix(target, parent+"/"); found {
				id, _, _ := strings.Cut(rest, "/")
				return id
			}
		}
	}
	return ""
}

// endUnknown holds the process by a pidfd before it looks once more.
func (s *Service) endUnknown(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil // it went by itself
	}
	defer unix.Close(fd)
	if id := s.machineOf(pid); !s.ours(pid) || id == "" || s.known(id) {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("ending process %d: %w", pid, err)
	}
	return awaitEnd(fd, pid)
}

// removeStrays mends at the daemon's start what belongs to no machine.
func (s *Service) removeStrays() {
	ctx, cancel := context.WithTimeout(s.life, adoptLimit)
	defer cancel()
	for _, f := range append(s.strayFolders(), s.strayVMMs()...) {
		s.Log.Warn("removing what belongs to no machine", "object", f.Object, "problem", f.Problem)
		if err := f.Repair(ctx); err != nil {
			s.Log.Error("removing what belongs to no machine", "object", f.Object, "error", err)
		}
	}
}
