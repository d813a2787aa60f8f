// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
)

const (
	maxConsole   = 4 << 20 // bytes read of a console's file; engines keep less (vmm.Config.ConsoleBytes)
	tailBytes    = 2 << 10
	tailLines    = 12
	maxTailWidth = 200 // bytes of a line in an error
)

// Console gives what is kept of the guest's console output; empty before the first start.
func (s *Service) Console(ref string) ([]byte, error) {
	i, err := s.Get(ref)
	if err != nil || i.ConsolePath == "" {
		return nil, err
	}
	text, err := readTail(i.ConsolePath, maxConsole)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // RunDir is emptied by a reboot
	}
	if err != nil {
		return nil, fmt.Errorf("reading the console of machine %s: %w", i.ID, err)
	}
	return text, nil
}

// readTail reads at most the last limit bytes.
func readTail(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > limit {
		if _, err := f.Seek(-limit, io.SeekEnd); err != nil {
			return nil, err
		}
	}
	return io.ReadAll(io.LimitReader(f, limit))
}

// consoleTail is the console's last lines for an error: printable and short,
// whatever the guest wrote. Empty when there is nothing.
func consoleTail(path string) string {
	text, err := readTail(path, tailBytes)
	if err != nil {
		return ""
	}
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	if len(lines) > tailLines {
		lines = lines[len(lines)-tailLines:]
	}
	out := make([]string, 0, len(lines))
	for _, l := range lines {
		out = append(out, printable(l))
	}
	return strings.Join(out, "\n")
}

func printable(line []byte) string {
	line = line[:min(len(line), maxTailWidth)]
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) {
			return -1 // controls could steer a terminal
		}
		return r
	}, string(bytes.ToValidUTF8(line, nil))))
}
