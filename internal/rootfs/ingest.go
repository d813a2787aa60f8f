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
	"sort"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/micropod/micropod/internal/erofs"
)

// ingested is what is known of a layer once it is read.
type ingested struct {
	entries []entry
	segment *erofs.Segment
	diffID  digest.Digest
}

// run converts the open blobs into the open image file.
func (c *conversion) run(ctx context.Context) (Result, error) {
	layers, err := c.ingestAll(ctx)
	if err != nil {
		return Result{}, err
	}
	t := newTree(c.limits.Entries)
	for i := range layers {
		if err := t.applyLayer(ctx, i, layers[i].entries); err != nil {
			return Result{}, &LayerError{Index: i, Err: err}
		}
		layers[i].entries = nil
	}
	stats, err := erofs.Build(ctx, c.image.file, t.finish(), c.segments(layers), erofs.Options{UUID: imageUUID(layers)})
	if err != nil {
		return Result{}, fmt.Errorf("writing the image: %w", err)
	}
	sum, err := hashFile(ctx, c.image.file)
	if err != nil {
		return Result{}, fmt.Errorf("hashing the image: %w", err)
	}
	return Result{Digest: sum, Size: stats.Size, Entries: stats.Inodes}, nil
}

// segments puts the one that lies in the image first, as erofs.Build wants it.
func (c *conversion) segments(layers []ingested) []*erofs.Segment {
	if len(layers) == 0 {
		return nil
	}
	direct := c.direct()
	segments := []*erofs.Segment{layers[direct].segment}
	for i := range layers {
		if i != direct {
			segments = append(segments, layers[i].segment)
		}
	}
	return segments
}

// imageUUID is a name-based UUID (RFC 9562, version 8) of the layers.
func imageUUID(layers []ingested) (id [16]byte) {
	h := sha256.New()
	fmt.Fprintln(h, "micropod root file system")
	for _, l := range layers {
		fmt.Fprintln(h, l.diffID)
	}
	copy(id[:], h.Sum(nil))
	id[6] = id[6]&0x0f | 0x80
	id[8] = id[8]&0x3f | 0x80
	return id
}

// ingestAll reads as many layers at once as there are processors, the largest first,
// for it would be what the others wait for in the end.
func (c *conversion) ingestAll(ctx context.Context) ([]ingested, error) {
	order := make([]int, len(c.blobs))
	for i := range order {
		order[i] = i
	}
	sort.SliceStable(order, func(i, j int) bool { return c.sizes[order[i]] > c.sizes[order[j]] })
	layers := make([]ingested, len(c.blobs))
	shared := &budget{limits: c.limits}
	meter := newMeter(c.sizes, c.progress)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(max(1, runtime.GOMAXPROCS(0)))
	for _, i := range order {
		group.Go(func() (err error) {
			if err := ctx.Err(); err != nil {
				return err
			}
			if layers[i], err = c.ingest(ctx, i, shared, meter); err != nil {
				return &LayerError{Index: i, Err: err}
			}
			return nil
		})
	}
	return layers, group.Wait()
}

// ingest reads one layer to its end.
func (c *conversion) ingest(ctx context.Context, i int, shared *budget, m *meter) (ingested, error) {
	blob := &meteredReader{file: c.blobs[i], meter: m}
	src, err := decompress(blob)
	if err != nil {
		return ingested{}, corrupt(err)
	}
	defer src.Close()
	var uncompressed int64
	p := startPump(ctx, src, func(n int) error {
		uncompressed += int64(n)
		if err := shared.takeBytes(int64(n)); err != nil {
			return err
		}
		return shared.checkRatio(uncompressed, blob.read)
	})
	defer p.close()
	layer := ingested{segment: c.segment(i)}
	if layer.entries, err = readTar(p, layer.segment, shared); err != nil {
		return ingested{}, corrupt(err)
	}
	// The digest is of all that the blob holds, also behind the end of the tar.
	if _, err := io.Copy(io.Discard, p); err != nil {
		return ingested{}, corrupt(err)
	}
	layer.diffID = p.digest()
	if want := c.diffIDs[i]; want != "" && layer.diffID != want {
		return ingested{}, fmt.Errorf("%w: got %s, want %s", ErrDiffID, layer.diffID, want)
	}
	return layer, layer.segment.Release()
}

func (c *conversion) segment(i int) *erofs.Segment {
	if c.spools[i].blocks == nil {
		return erofs.NewSegment(c.image.file, c.spools[i].tails, 1)
	}
	return erofs.NewSegment(c.spools[i].blocks, c.spools[i].tails, 0)
}

// readTar puts the files' bytes into the segment and lists the entries.
func readTar(r io.Reader, segment *erofs.Segment, shared *budget) ([]entry, error) {
	var entries []entry
	reader := tar.NewReader(r)
	for {
		header, err := reader.Next()
		if err == io.EOF {
			return entries, nil
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
			return nil, err
		}
		e, err := parseHeader(header)
		if err != nil {
			return nil, err
		}
		if err := shared.takeEntry(e.weight()); err != nil {
			return nil, err
		}
		if err := readData(reader, header, &e, segment, shared); err != nil {
			return nil, fmt.Errorf("%.100q: %w", header.Name, err)
		}
		if e.action != actIgnore {
			entries = append(entries, e)
		}
	}
}

func readData(r io.Reader, h *tar.Header, e *entry, segment *erofs.Segment, shared *budget) (err error) {
	if e.inode == nil || e.inode.Mode&erofs.TypeMask != erofs.TypeRegular {
		return nil
	}
	if isSparse(h) {
		// Holes come out of nothing, so they count beside what the tar holds.
		if err := shared.takeBytes(h.Size); err != nil {
			return err
		}
	}
	e.inode.Data, err = segment.Append(r, h.Size, e.inode.Xattrs)
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
