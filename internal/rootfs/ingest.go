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

const maxRunning = 8 // layers decompressed at once, and again as many waiting to be read

// run converts the open blobs into the open image file and makes that durable.
func (c *conversion) run(ctx context.Context) (Result, error) {
	image := erofs.NewWriter(c.image, c.tails)
	t := newTree(c.limits.Entries)
	diffIDs, err := c.ingestAll(ctx, image, t)
	if err != nil {
		return Result{}, err
	}
	hash := startHashing(ctx, c.image)
	stats, err := image.Finish(ctx, t.finish(), erofs.Options{UUID: imageUUID(diffIDs), Settled: hash.settle})
	if err != nil {
		_, _ = hash.sum() // of nothing; it ends here
		return Result{}, fmt.Errorf("writing the image: %w", err)
	}
	synced := make(chan error, 1)
	go func() { synced <- c.image.Sync() }()
	sum, err := hash.sum()
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

// ingestAll reads the layers, bottom first, into image and t, while the next ones are
// being decompressed.
func (c *conversion) ingestAll(ctx context.Context, image *erofs.Writer, t *tree) ([]digest.Digest, error) {
	ctx, cancel := context.WithCancel(ctx)
	shared := &budget{limits: c.limits}
	pumps := c.startPumps(ctx, shared, newMeter(c.sizes, c.progress))
	defer func() {
		cancel()
		for p := range pumps {
			p.close()
		}
	}()
	diffIDs := make([]digest.Digest, len(c.blobs))
	for i := range c.blobs {
		p, ok := <-pumps
		if !ok {
			return nil, ctx.Err()
		}
		err := c.ingest(ctx, i, p, image, t, shared)
		p.close()
		if err != nil {
			return nil, &LayerError{Index: i, Err: corrupt(err)}
		}
		diffIDs[i] = p.digest()
	}
	return diffIDs, nil
}

// startPumps decompresses the layers in their order, as many at once as there are
// processors, and gives the pumps in that order. The channel is closed behind the last,
// or soon after ctx is cancelled; the receiver closes the pumps.
func (c *conversion) startPumps(ctx context.Context, shared *budget, m *meter) <-chan *pump {
	pool := newChunkPool(extraChunks)
	running := make(chan struct{}, min(max(2, runtime.GOMAXPROCS(0)), maxRunning))
	// Bounded, for pumps of layers that are decompressed whole still hold chunks.
	pumps := make(chan *pump, maxRunning)
	go func() {
		defer close(pumps)
		for i := range c.blobs {
			select {
			case running <- struct{}{}:
			case <-ctx.Done():
				return
			}
			pumps <- c.startPump(ctx, i, pool, shared, m, func() { <-running })
		}
	}()
	return pumps
}

// startPump begins to decompress one layer.
func (c *conversion) startPump(ctx context.Context, i int, pool *chunkPool, shared *budget, m *meter, ended func()) *pump {
	blob := &meteredReader{meter: m}
	var uncompressed int64
	return startPump(ctx, pool, source{
		open: func() (io.ReadCloser, error) { return c.unpack(ctx, i, blob) },
		check: func(n int) error {
			uncompressed += int64(n)
			if err := shared.takeBytes(int64(n)); err != nil {
				return err
			}
			return shared.checkRatio(uncompressed, blob.read)
		},
		ended: ended,
	})
}

// ingest reads one layer to its end and applies it.
func (c *conversion) ingest(ctx context.Context, i int, p *pump, image *erofs.Writer, t *tree, shared *budget) error {
	t.layer = i
	if err := readTar(ctx, p, image, t, shared); err != nil {
		return err
	}
	// The digest is of all that the blob holds, also behind the end of the tar.
	if err := p.drain(); err != nil {
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
	file         *os.File
	offset, left int64 // of what is not read yet: its place in the file, and how much
	read         int64 // bytes
	meter        *meter
}

// Read reads on behind what it read before.
func (r *meteredReader) Read(b []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	n, err := r.file.ReadAt(b[:min(int64(len(b)), r.left)], r.offset)
	r.offset, r.left, r.read = r.offset+int64(n), r.left-int64(n), r.read+int64(n)
	r.meter.add(int64(n))
	if n > 0 && err == io.EOF {
		err = nil
	}
	return n, err
}
