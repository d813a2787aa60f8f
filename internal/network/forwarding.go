// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	sysctls      = "/proc/sys/net/"
	forward4     = "ipv4/conf/all/forwarding"
	forward6     = "ipv6/conf/all/forwarding"
	settingsFile = "host-settings.json"
)

// hostSettings is what was changed on the host, kept until Prune.
type hostSettings struct {
	// Before are the values that files of /proc/sys/net had.
	Before map[string]string
	// Uplinks4 and Uplinks6 are the interfaces that there were when forwarding was switched on:
	// between those nothing is forwarded, just as before.
	Uplinks4, Uplinks6 []string
}

// forward switches forwarding on, once, without costing the host its own routes: an
// interface of a router heeds router advertisements only where accept_ra is 2
// (Documentation/networking/ip-sysctl.rst).
func (h *Host) forward() error {
	h.tableMu.Lock()
	defer h.tableMu.Unlock()
	return within(h.ns, func() error {
		s, err := h.readSettings()
		if err != nil {
			return err
		}
		changes, err := s.plan()
		if err != nil || len(changes) == 0 {
			return err
		}
		// On record before anything is changed, or after a crash nobody could take it back; in the
		// table too, or the host would be open for a moment.
		if err := h.writeSettings(s); err != nil {
			return err
		}
		if err := h.writeTableLocked(); err != nil {
			return err
		}
		for _, c := range changes {
			if err := os.WriteFile(sysctls+c[0], []byte(c[1]), 0); err != nil {
				return fmt.Errorf("setting %s: %w", c[0], err)
			}
		}
		return nil
	})
}

// plan lists what to write, in this order, and notes in s what it was.
func (s *hostSettings) plan() (changes [][2]string, err error) {
	links, err := uplinks()
	if err != nil {
		return nil, err
	}
	change := func(path, from, to string) error {
		was, err := readSetting(path)
		if err != nil || was != from {
			return err
		}
		if _, known := s.Before[path]; !known {
			s.Before[path] = was
		}
		changes = append(changes, [2]string{path, to})
		return nil
	}
	if err := change(forward4, "0", "1"); err != nil {
		return nil, err
	}
	if len(changes) > 0 {
		s.Uplinks4 = links
	}
	if was, err := readSetting(forward6); err != nil || was != "0" {
		return changes, err
	}
	for _, l := range append(links, "default") {
		if err := change("ipv6/conf/"+l+"/accept_ra", "1", "2"); err != nil {
			return nil, err
		}
	}
	s.Uplinks6 = links
	return changes, change(forward6, "0", "1")
}

// uplinks are the host's devices but for loopback and what daemons like this one made.
func uplinks() ([]string, error) {
	entries, err := os.ReadDir(sysctls + "ipv4/conf")
	var names []string
	for _, e := range entries {
		n := e.Name()
		if n != "all" && n != "default" && n != "lo" && !strings.HasPrefix(n, "mpb") && !strings.HasPrefix(n, "mpv") {
			names = append(names, n)
		}
	}
	return names, err
}

// readSetting gives "" for a file that this kernel does not have.
func readSetting(path string) (string, error) {
	b, err := os.ReadFile(sysctls + path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return strings.TrimSpace(string(b)), err
}

// restoreSettings takes back what forward changed, where it is still as forward left it.
func (h *Host) restoreSettings() error {
	return within(h.ns, func() error {
		s, err := h.readSettings()
		if err != nil {
			return err
		}
		var errs []error
		// Forwarding comes last in the alphabet of neither family: off first, then accept_ra.
		paths := slices.Sorted(maps.Keys(s.Before))
		slices.SortStableFunc(paths, func(a, b string) int { return b2i(isForwarding(b)) - b2i(isForwarding(a)) })
		for _, path := range paths {
			now, err := readSetting(path)
			if err == nil && now != "" && now != s.Before[path] {
				err = os.WriteFile(sysctls+path, []byte(s.Before[path]), 0)
			}
			errs = append(errs, err)
		}
		if err := errors.Join(errs...); err != nil {
			return fmt.Errorf("restoring the host's settings: %w", err)
		}
		if err := os.Remove(h.settingsPath()); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	})
}

func isForwarding(path string) bool { return path == forward4 || path == forward6 }

func (h *Host) settingsPath() string { return filepath.Join(h.StateDir, settingsFile) }

func (h *Host) readSettings() (*hostSettings, error) {
	s := &hostSettings{Before: map[string]string{}}
	b, err := os.ReadFile(h.settingsPath())
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err == nil {
		err = json.Unmarshal(b, s)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the host's former settings: %w", err)
	}
	return s, nil
}

// writeSettings replaces the file in one step, on disk when it returns.
func (h *Host) writeSettings(s *hostSettings) error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if err := replaceFile(h.settingsPath(), b); err != nil {
		return fmt.Errorf("keeping the host's settings: %w", err)
	}
	return nil
}

func replaceFile(path string, data []byte) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o711); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
