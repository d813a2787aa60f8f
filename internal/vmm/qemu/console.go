// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// ring is how a machine's output comes out of QEMU bounded at every moment, also
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
type ring struct {
	mu     sync.Mutex // guards all
	writer *os.File   // write-only; QEMU's own open file description
	memory *os.File   // read and write, offset not used
	size   int64
	start  int64 // of what is not drained yet
	log    tailFile
}

// newRing makes a ring of size bytes that drains into log. The file to inherit is
// ring.writer.
func newRing(name string, size int64, log tailFile) (*ring, error) {
	memory, err := newMemfd(name, size)
	if err != nil {
		return nil, err
	}
	writer, err := reopen(memory, os.O_WRONLY)
	if err != nil {
		memory.Close()
		return nil, fmt.Errorf("opening memfd %s for writing: %w", name, err)
	}
	return &ring{writer: writer, memory: memory, size: size, log: log}, nil
}

// bound fixes the ring's size. QEMU truncates a file that it opens as a log
// (chardev/char.c): for the console this comes after that and before the guest runs.
func (r *ring) bound() error {
	if err := r.memory.Truncate(r.size); err != nil {
		return fmt.Errorf("sizing %s: %w", r.memory.Name(), err)
	}
	return seal(r.memory, unix.F_SEAL_GROW|unix.F_SEAL_SHRINK)
}

// drain moves what is new into the log. It returns whether there was anything.
func (r *ring) drain() (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	offset, err := r.writer.Seek(0, io.SeekCurrent)
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
func (r *ring) take(end int64) error {
	b := make([]byte, end-r.start)
	if _, err := r.memory.ReadAt(b, r.start); err != nil {
		return err
	}
	err := r.log.append(bytes.ReplaceAll(b, []byte{0}, nil))
	clear(b)
	_, zeroErr := r.memory.WriteAt(b, r.start)
	r.start = end
	return errors.Join(err, zeroErr)
}

// turn sets the writer back to the start and drains what it wrote meanwhile. A
// writer so fast that it is past the middle again before turn is done loses bytes.
func (r *ring) turn() error {
	if _, err := r.writer.Seek(0, io.SeekStart); err != nil {
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
	return punch(r.memory, r.size/2, r.size/2) // gives the memory back
}

func (r *ring) reset() error {
	if _, err := r.writer.Seek(0, io.SeekStart); err != nil {
		return err
	}
	r.start = 0
	return punch(r.memory, 0, r.size)
}

func (r *ring) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return errors.Join(r.writer.Close(), r.memory.Close())
}

func punch(f *os.File, offset, n int64) error {
	return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, offset, n)
}

// rewriteSuffix names the file that is about to replace another.
const rewriteSuffix = ".new"

// tailFile is a file that keeps the newest bytes of what is appended to it.
type tailFile struct {
	path  string
	limit int64 // bytes; never exceeded
}

// append adds b. When the file would exceed its limit the older half of it goes;
// a reader that follows the path sees a new file then.
func (t tailFile) append(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	f, err := os.OpenFile(t.path, os.O_APPEND|os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size()+int64(len(b)) > t.limit {
		return t.rewrite(f, info.Size(), b)
	}
	_, err = f.Write(b)
	return err
}

// rewrite replaces the file by its newest bytes and b, together half of the limit
// or, if b is longer, as much of it as fits.
func (t tailFile) rewrite(old *os.File, size int64, b []byte) error {
	b = b[max(0, int64(len(b))-t.limit):]
	keep := min(size, max(0, t.limit/2-int64(len(b))))
	kept := make([]byte, keep)
	if _, err := old.ReadAt(kept, size-keep); err != nil && err != io.EOF {
		return err
	}
	next := t.path + rewriteSuffix
	if err := os.WriteFile(next, append(kept, b...), 0o600); err != nil {
		os.Remove(next)
		return err
	}
	return os.Rename(next, t.path)
}

// tail returns at most n of the newest bytes, beginning with a whole line if there is one.
func (t tailFile) tail(n int64) string {
	f, err := os.Open(t.path)
	if err != nil {
		return ""
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return ""
	}
	from := max(0, info.Size()-n)
	b := make([]byte, info.Size()-from)
	if _, err := f.ReadAt(b, from); err != nil && err != io.EOF {
		return ""
	}
	if _, rest, ok := bytes.Cut(b, []byte("\n")); from > 0 && ok {
		b = rest
	}
	return string(bytes.TrimSpace(b))
}
