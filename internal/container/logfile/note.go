// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package logfile

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
)

// note tells how far a log is: written after each write to the log, so that it
// is never ahead of it. It survives the daemon, not the host (nothing is synced), and so do machines.
type note struct {
	size   int64 // of the log's file
	logged [2]uint64
}

// noteSize is that of the file: size, two offsets, CRC-32C, big-endian.
const noteSize = 3*8 + 4

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (n note) encode() []byte {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, noteSize), uint64(n.size))
	b = binary.BigEndian.AppendUint64(b, n.logged[Stdout])
	b = binary.BigEndian.AppendUint64(b, n.logged[Stderr])
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// parseNote reads a note; ok is false for anything else.
func parseNote(b []byte) (n note, ok bool) {
	if len(b) != noteSize || binary.BigEndian.Uint32(b[noteSize-4:]) != crc32.Checksum(b[:noteSize-4], castagnoli) {
		return note{}, false
	}
	n.size = int64(binary.BigEndian.Uint64(b))
	n.logged[Stdout] = binary.BigEndian.Uint64(b[8:])
	n.logged[Stderr] = binary.BigEndian.Uint64(b[16:])
	return n, n.size >= 0
}

// writeNote is one small write. l.mu is held.
func (l *Log) writeNote() error {
	if _, err := l.note.WriteAt(note{size: l.size, logged: l.logged}.encode(), 0); err != nil {
		return fmt.Errorf("noting how far the log is: %w", err)
	}
	return nil
}

func readNote(path string) (note, bool) {
	f, err := os.Open(path)
	if err != nil {
		return note{}, false
	}
	defer f.Close()
	b := make([]byte, noteSize+1)
	n, _ := f.ReadAt(b, 0) // a short or long file is no note
	return parseNote(b[:n])
}
