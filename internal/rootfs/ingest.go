// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/micropod/micropod/internal/erofs"
)

// run converts the open blobs into the open image file and makes that durable.
func (c *conversion) run(ctx context.Context) (Result, error) {
	image := erofs.NewWriter(c.image, c.tails)
	t := newTree(c.limits.Entries)
	diffIDs, err := c.ingestAll(ctx, image, t)
	if err != nil {
		return Result{}, err
	}
	stats, err := image.Finish(ctx, t.finish(), erofs.Options{UUID: imageUUID(diffIDs)})
	if err != nil {
		return Result{}, fmt.Errorf("writing the image: %w", err)
	}
	synced := make(chan error, 1)
	go func() { synced <- c.image.Sync() }()
	sum, err := hashFile(ctx, c.image)
	if err := errors.Join(err, <-synced); err != nil {
		return Result{}, fmt.Errorf("reading and syncing the image: %w", err)
	}
	return Result{Digest: sum, Size: stats.Size, Entries: stats.Inodes}, nil
}

// imageUUID is a name-based UUID (RFC 9562, version 8) of the layers.
func imageUUID(diffIDs []digest.Digest) (id [16]byte) {
	h := sha256.New()
	fmt.Fprintln(h, "micropod root file system")
	for _, d := range diffIDs {
		fmt.Fprintln(h, d)
	}
	copy(id[:], h.Sum(nil))
	id[6] = id[6]&0x0f | 0x80
	id[8] = id[8]&0x3f | 0x80
	return id
}

// ingestAll reads the layers, bottom first, into image and t. While one is read the next
// ones are decompressed ahead, one for each processor, as far as memory is granted.
func (c *conversion) ingestAll(ctx context.Context, image *erofs.Writer, t *tree) ([]digest.Digest, error) {
	ctx, cancel := context.WithCancel(ctx)
	ahead := min(max(2, runtime.GOMAXPROCS(0)), 8)
	shared := &budget{limits: c.limits}
	meter := newMeter(c.sizes, c.progress)
	pool := &chunkPool{}
	var pumps []*pump
	next := 0
	defer func() {
		cancel()
		for _, p := range pumps[next:] {
			p.close()
		}
	}()
	diffIDs := make([]digest.Digest, len(c.blobs))
	for i := range c.blobs {
		for len(pumps) < min(i+ahead, len(c.blobs)) {
			pumps = append(pumps, c.startPump(ctx, len(pumps), pool, aheadBytes/chunkSize/ahead, shared, meter))
		}
		if err := c.ingest(ctx, i, pumps[i], image, t, shared); err != nil {
			return nil, &LayerError{Index: i, Err: corrupt(err)}
		}
		diffIDs[i] = pumps[i].digest()
		pumps[i].close()
		next++
	}
	return diffIDs, nil
}

// startPump begins to decompress one layer.
func (c *conversion) startPump(ctx context.Context, i int, pool *chunkPool, chunks int, shared *budget, m *meter) *pump {
	blob := &meteredReader{file: c.blobs[i], meter: m}
	var uncompressed int64
	return startPump(ctx, pool, chunks,
		func() (io.ReadCloser, error) { return decompress(blob) },
		func(n int) error {
			uncompressed += int64(n)
			if err := shared.takeBytes(int64(n)); err != nil {
				return err
			}
			return shared.checkRatio(uncompressed, blob.read)
		})
}

// ingest reads one layer to its end and applies it.
func (c *conversion) ingest(ctx context.Context, i int, p *pump, image *erofs.Writer, t *tree, shared *budget) error {
	t.layer = i
	if err := readTar(ctx, p, image, t, shared); err != nil {
		return err
	}
	// The digest is of all that the blob holds, also behind the end of the tar.
	if _, err := io.Copy(io.Discard, p); err != nil {
		return err
	}
	if got, want := p.digest(), c.diffIDs[i]; want != "" && got != want {
		return fmt.Errorf("%w: got %s, want %s", ErrDiffID, got, want)
	}
	return nil
}

// readTar puts files' bytes into the image and names into the tree.
func readTar(ctx context.Context, r io.Reader, image *erofs.Writer, t *tree, shared *budget) error {
	reader := tar.NewReader(r)
	for ctx.Err() == nil {
		header, err := reader.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
			return err
		}
		e, err := parseHeader(header)
		if err != nil {
			return err
		}
		if err := shared.takeEntry(e.weight()); err != nil {
			return err
		}
		if err := readData(reader, header, &e, image, shared); err != nil {
			return fmt.Errorf("%.200q: %w", header.Name, err)
		}
		if err := t.apply(&e); err != nil {
			return fmt.Errorf("%.200q: %w", header.Name, err)
		}
	}
	return ctx.Err()
}

func readData(r io.Reader, h *tar.Header, e *entry, image *erofs.Writer, shared *budget) (err error) {
	if e.inode == nil || e.inode.Mode&erofs.TypeMask != erofs.TypeRegular {
		return nil
	}
	if isSparse(h) {
		// Holes come out of nothing, so they count beside what the tar holds.
		if err := shared.takeBytes(h.Size); err != nil {
			return err
		}
	}
	e.inode.Data, err = image.Append(r, h.Size, e.inode.Xattrs)
	return err
}

func isSparse(h *tar.Header) bool {
	if h.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return false
}

// hashFile reads f from its start.
func hashFile(ctx context.Context, f *os.File) (digest.Digest, error) {
	h := sha256.New()
	buffer := make([]byte, 1<<20)
	for offset := int64(0); ; {
		n, err := f.ReadAt(buffer, offset)
		h.Write(buffer[:n])
		offset += int64(n)
		if err == io.EOF {
			return digest.NewDigest(digest.SHA256, h), nil
		}
		if err != nil {
			return "", err
		}
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
	}
}

// meter adds up what is read from all blobs.
type meter struct {
	mu          sync.Mutex
	done, total int64
	tell        func(done, total int64)
}

func newMeter(sizes []int64, tell func(done, total int64)) *meter {
	m := &meter{tell: tell}
	for _, size := range sizes {
		m.total += size
	}
	return m
}

func (m *meter) add(n int64) {
	if m.tell == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.done += n
	m.tell(m.done, m.total)
}

// meteredReader reads a blob from its start, whatever the file's own offset.
type meteredReader struct {
	file  *os.File
	read  int64 // bytes
	meter *meter
}

// Read reads on behind what it read before.
func (r *meteredReader) Read(b []byte) (int, error) {
	n, err := r.file.ReadAt(b, r.read)
	r.read += int64(n)
	r.meter.add(int64(n))
	if n > 0 && err == io.EOF {
		err = nil
	}
	return n, err
}
