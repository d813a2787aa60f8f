// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package process

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Ring is how a machine's output comes out of QEMU bounded at every moment, also
// while no daemon runs. QEMU writes into a memfd that can neither grow nor
// shrink: at its end writes fail and the output is dropped. A daemon drains it into
// a file, and because QEMU's descriptor and ours are one open file description
// (open(2)), it can set the offset that QEMU writes at:
//
//	|--- zeroed ---|--- to drain ---|--- zero ---|
//	0         start^          offset^            size
//
// Once the offset is past the middle it is set back to 0. What has been drained is
// zeroed, so that an adopting daemon knows what is new: zero bytes are no output.
type Ring struct {
	mu     sync.Mutex // guards all
	Writer *os.File   // write-only; QEMU's own open file description
	memory *os.File   // read and write, offset not used
	size   int64
	start  int64 // of what is not drained yet
	Log    Log
}

// NewRing makes a ring of size bytes that drains into log. The file to inherit is
// Ring.Writer.
func NewRing(name string, size int64, log Log) (*Ring, error) {
	memory, err := NewMemfd(name, size)
	if err != nil {
		return nil, err
	}
	writer, err := Reopen(memory, os.O_WRONLY)
	if err != nil {
		memory.Close()
		return nil, fmt.Errorf("opening memfd %s for writing: %w", name, err)
	}
	return &Ring{Writer: writer, memory: memory, size: size, Log: log}, nil
}

// Bound fixes the ring's size. QEMU truncates a file that it opens as a log
// (chardev/char.c): for the console this comes after that and before the guest runs.
func (r *Ring) Bound() error {
	if err := r.memory.Truncate(r.size); err != nil {
		return fmt.Errorf("sizing %s: %w", r.memory.Name(), err)
	}
	return Seal(r.memory, unix.F_SEAL_GROW|unix.F_SEAL_SHRINK)
}

// Drain moves what is new into the log. It returns whether there was anything.
func (r *Ring) Drain() (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	offset, err := r.Writer.Seek(0, io.SeekCurrent)
	if err != nil || offset == r.start {
		return false, err
	}
	if offset < r.start || offset > r.size {
		return false, r.reset() // only a QEMU that has been taken over moves it
	}
	if err := r.take(offset); err != nil {
		return true, err
	}
	if offset >= r.size/2 {
		return true, r.turn()
	}
	return true, nil
}

// take moves the bytes from start to end into the log.
func (r *Ring) take(end int64) error {
	b := make([]byte, end-r.start)
	if _, err := r.memory.ReadAt(b, r.start); err != nil {
		return err
	}
	err := r.Log.Append(bytes.ReplaceAll(b, []byte{0}, nil))
	clear(b)
	_, zeroErr := r.memory.WriteAt(b, r.start)
	r.start = end
	return errors.Join(err, zeroErr)
}

// turn sets the writer back to the start and drains what it wrote meanwhile. A
// writer so fast that it is past the middle again before turn is done loses bytes.
func (r *Ring) turn() error {
	if _, err := r.Writer.Seek(0, io.SeekStart); err != nil {
		return err
	}
	late := make([]byte, r.size-r.start)
	if _, err := r.memory.ReadAt(late, r.start); err != nil && err != io.EOF {
		return err
	}
	if n := bytes.IndexByte(late, 0); n >= 0 {
		late = late[:n]
	}
	if err := r.take(r.start + int64(len(late))); err != nil {
		return err
	}
	r.start = 0
	return Punch(r.memory, r.size/2, r.size/2) // gives the memory back
}

func (r *Ring) reset() error {
	if _, err := r.Writer.Seek(0, io.SeekStart); err != nil {
		return err
	}
	r.start = 0
	return Punch(r.memory, 0, r.size)
}

func (r *Ring) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return errors.Join(r.Writer.Close(), r.memory.Close())
}

func Punch(f *os.File, offset, n int64) error {
	return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, offset, n)
}
