// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package image

import (
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// blobPath is where a blob lies; the digest must have been validated.
func (s *Store) blobPath(d digest.Digest) string {
	return filepath.Join(s.cfg.Root, blobsDir, d.Algorithm().String(), d.Encoded())
}

// hasBlob tells if the store has the blob in the right size. Blobs are
// verified before they get their name, so size is check enough.
func (s *Store) hasBlob(d ocispec.Descriptor) bool {
	st, err := os.Lstat(s.blobPath(d.Digest))
	return err == nil && st.Mode().IsRegular() && st.Size() == d.Size
}

// readBlob reads a small blob and verifies it.
func (s *Store) readBlob(d ocispec.Descriptor, limit int64) ([]byte, error) {
	b, err := readBounded(s.blobPath(d.Digest), limit)
	if err != nil {
		return nil, err
	}
	return b, verify(b, d)
}

// writeBlob stores a small blob of ours or one already verified.
func (s *Store) writeBlob(d ocispec.Descriptor, b []byte) error {
	if s.hasBlob(d) {
		return nil
	}
	in, err := s.newIngest()
	if err != nil {
		return err
	}
	defer in.discard()
	if _, err := in.Write(b); err != nil {
		return err
	}
	return in.commit(d)
}

// ingest is a blob being written in ingest/, hashed on the way. It is used by
// one goroutine. It is a registry.Sink.
type ingest struct {
	s    *Store
	f    *os.File
	size int64
	// written is up to where the kernel was told to begin writing to the disk.
	written int64
	// algorithm is that of the digest to come; hash is over the size bytes.
	algorithm digest.Algorithm
	hash      hash.Hash
	done      bool
}

// newIngest starts a blob whose digest is not known yet (sha256).
func (s *Store) newIngest() (*ingest, error) {
	f, err := os.CreateTemp(filepath.Join(s.cfg.Root, ingestDir), "new-*.tmp")
	if err != nil {
		return nil, fmt.Errorf("creating a file for a blob: %w", err)
	}
	return &ingest{s: s, f: f, algorithm: digest.Canonical, hash: digest.Canonical.Hash()}, nil
}

// partPath is where a blob lies while it is fetched.
func (s *Store) partPath(d digest.Digest) string {
	return filepath.Join(s.cfg.Root, ingestDir, d.Algorithm().String()+"-"+d.Encoded()+".part")
}

// resumeIngest starts a blob of known digest, or goes on with what an earlier
// try left. Only one may exist per digest; blob flights see to that.
func (s *Store) resumeIngest(d ocispec.Descriptor) (*ingest, error) {
	f, err := os.OpenFile(s.partPath(d.Digest), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("creating a file for blob %s: %w", d.Digest, err)
	}
	in := &ingest{s: s, f: f, algorithm: d.Digest.Algorithm(), hash: d.Digest.Algorithm().Hash()}
	if in.size, err = io.Copy(in.hash, f); err == nil && in.size > d.Size {
		err = in.Reset()
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("reading the part of blob %s that is here: %w", d.Digest, err)
	}
	return in, nil
}

// Write appends.
func (in *ingest) Write(p []byte) (int, error) {
	n, err := in.f.Write(p)
	in.hash.Write(p[:n])
	in.size += int64(n)
	in.writeBack()
	return n, err
}

// writeBackStep is how much is collected before the disk gets it (bytes).
const writeBackStep = 4 << 20

// writeBack has the kernel begin to write what came since the last step, so that the sync at the end, for which
// the layer's conversion waits, finds little left to do. It is a hint (sync_file_range(2)): its failure is the sync's to tell.
func (in *ingest) writeBack() {
	if in.size-in.written < writeBackStep {
		return
	}
	_ = unix.SyncFileRange(int(in.f.Fd()), in.written, in.size-in.written, unix.SYNC_FILE_RANGE_WRITE)
	in.written = in.size
}

// Offset is how many bytes were written.
func (in *ingest) Offset() int64 { return in.size }

// Reset empties the blob.
func (in *ingest) Reset() error {
	if err := in.f.Truncate(0); err != nil {
		return err
	}
	_, err := in.f.Seek(0, io.SeekStart)
	in.size, in.written = 0, 0
	in.hash.Reset()
	return err
}

// descriptor tells size and digest of what was written so far.
func (in *ingest) descriptor() ocispec.Descriptor {
	return ocispec.Descriptor{Digest: digest.NewDigest(in.algorithm, in.hash), Size: in.size}
}

// check compares what was written with what was promised.
func (in *ingest) check(want ocispec.Descriptor) error {
	if in.size != want.Size {
		return corrupt("%s has %d bytes, not %d", want.Digest, in.size, want.Size)
	}
	if got := in.descriptor().Digest; got != want.Digest {
		return corrupt("content of %s has digest %s", want.Digest, got)
	}
	return nil
}

// commit gives the blob its name, durably, if it is what want promises.
func (in *ingest) commit(want ocispec.Descriptor) error {
	if err := in.check(want); err != nil {
		return err
	}
	to := in.s.blobPath(want.Digest)
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	if err := errors.Join(in.f.Chmod(0o444), in.s.sync(in.f)); err != nil {
		return fmt.Errorf("storing blob %s: %w", want.Digest, err)
	}
	if err := in.s.rename(in.f.Name(), to); err != nil {
		return fmt.Errorf("storing blob %s: %w", want.Digest, err)
	}
	in.done = true
	return in.f.Close()
}

// discard removes what was not committed; deferred it is harmless after commit.
func (in *ingest) discard() {
	if in.done {
		return
	}
	in.done = true
	in.f.Close()
	os.Remove(in.f.Name())
}

// keep closes the file and leaves it for a later resumeIngest.
func (in *ingest) keep() {
	if !in.done {
		in.f.Close()
	}
}
