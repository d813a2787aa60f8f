// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// folder imports an OCI image layout folder.
func (im *importer) folder(ctx context.Context, path string) ([]*Image, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	c := folderContents{root}
	b, err := readContents(c, ocispec.ImageLayoutFile, 64<<10)
	if err != nil {
		return nil, fmt.Errorf("%w: %s is not an OCI image layout, its file %s: %w", ErrUnsupported, path, ocispec.ImageLayoutFile, err)
	}
	var layout ocispec.ImageLayout
	if err := json.Unmarshal(b, &layout); err != nil || layout.Version == "" {
		return nil, corrupt("%s of %s is not valid", ocispec.ImageLayoutFile, path)
	}
	return im.oci(ctx, c, nil)
}

// folderContents are a folder's files; links cannot lead out of it.
type folderContents struct{ root *os.Root }

func (c folderContents) open(name string) (io.ReadCloser, int64, error) {
	f, err := c.root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0) // a fifo must not block us
	if err != nil {
		return nil, 0, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = corrupt("%s is not a regular file", name)
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, st.Size(), nil
}

// The name of an image in an index, as containerd and Docker write it.
const annotationContainerdName = "io.containerd.image.name"

// oci imports the images of an OCI layout's index. legacy are the entries of a
// manifest.json beside it, which may know more names.
func (im *importer) oci(ctx context.Context, c contents, legacy []dockerImage) ([]*Image, error) {
	b, err := readContents(c, ocispec.ImageIndexFile, maxManifest)
	if err != nil {
		return nil, fmt.Errorf("reading the index: %w", err)
	}
	doc, err := parseDocument(b, ocispec.MediaTypeImageIndex)
	if err != nil {
		return nil, fmt.Errorf("reading the index: %w", err)
	}
	src := &contentsSource{im: im, c: c}
	images, err := im.resolveAll(ctx, src, doc)
	if err != nil {
		return nil, err
	}
	var list []*Image
	for _, f := range images {
		names, err := im.names(len(images), append(f.names, legacyNames(legacy, f.doc.Config.Digest)...))
		if err != nil {
			return list, err
		}
		img, err := im.s.admit(ctx, src, f.found, names, im.lease, im.post)
		if err != nil {
			return list, err
		}
		list = append(list, img)
	}
	return list, nil
}

// namedImage is an image of an index with what the index calls it.
type namedImage struct {
	*found
	names []string
}

// resolveAll finds the images of a layout's index that fit the platform.
// Entries of one name are one image for several platforms, and so are entries
// without name that tell their platform; all others stand for themselves. The
// same image under several names is returned once.
func (im *importer) resolveAll(ctx context.Context, src source, index *document) ([]namedImage, error) {
	var images []namedImage
	byID := map[digest.Digest]int{}
	var unfit error
	for _, g := range group(index.Manifests) {
		r := &resolver{src: src, platform: im.platform, left: maxDocuments}
		f, err := r.descend(ctx, &document{Manifests: g.entries}, 0)
		if errors.Is(err, ErrPlatform) {
			unfit = err
			continue
		}
		if err != nil {
			return nil, err
		}
		at, known := byID[f.doc.Config.Digest]
		if !known {
			at = len(images)
			byID[f.doc.Config.Digest] = at
			images = append(images, namedImage{found: f})
		}
		if g.name != "" {
			images[at].names = append(images[at].names, g.name)
		}
	}
	if len(images) == 0 {
		if unfit == nil {
			unfit = corrupt("the archive holds no image")
		}
		return nil, unfit
	}
	return images, nil
}

type indexGroup struct {
	name    string
	entries []ocispec.Descriptor
}

func group(list []ocispec.Descriptor) []indexGroup {
	var groups []indexGroup
	at := map[string]int{}
	for _, d := range list {
		if attestation(d) {
			continue
		}
		name := indexName(d)
		key := name
		if name == "" && d.Platform != nil {
			key = " platforms"
		}
		i, ok := at[key]
		if !ok || key == "" {
			i = len(groups)
			at[key] = i
			groups = append(groups, indexGroup{name: name})
		}
		groups[i].entries = append(groups[i].entries, d)
	}
	return groups
}

// indexName is what an index entry calls its image. The reference name alone
// may also be just a tag, which names nothing.
func indexName(d ocispec.Descriptor) string {
	if n := d.Annotations[annotationContainerdName]; n != "" {
		return n
	}
	n := d.Annotations[ocispec.AnnotationRefName]
	if !strings.ContainsAny(n, ":/") {
		return ""
	}
	return n
}

// contentsSource fetches from a layout folder or archive.
type contentsSource struct {
	im *importer
	c  contents
}

func blobName(d digest.Digest) string {
	return "blobs/" + d.Algorithm().String() + "/" + d.Encoded()
}

func (s *contentsSource) small(d ocispec.Descriptor, limit int64) ([]byte, error) {
	b, err := readContents(s.c, blobName(d.Digest), limit)
	if errors.Is(err, os.ErrNotExist) {
		return nil, corrupt("blob %s is not in the archive", d.Digest)
	}
	if err != nil {
		return nil, err
	}
	return b, verify(b, d)
}

func (s *contentsSource) manifest(_ context.Context, d ocispec.Descriptor) ([]byte, error) {
	return s.small(d, maxManifest)
}

func (s *contentsSource) config(_ context.Context, d ocispec.Descriptor) ([]byte, error) {
	return s.small(d, maxConfig)
}

func (s *contentsSource) blob(ctx context.Context, d ocispec.Descriptor, post func(Event)) error {
	r, _, err := s.c.open(blobName(d.Digest))
	if errors.Is(err, os.ErrNotExist) {
		return corrupt("blob %s is not in the archive", d.Digest)
	}
	if err != nil {
		return err
	}
	defer r.Close()
	posted := &counter{r: io.LimitReader(r, d.Size+1), ctx: ctx, post: func(n int64) {
		post(Event{ID: short(d.Digest), State: StateReading, Done: n, Total: d.Size})
	}}
	in := &ingest{algorithm: d.Digest.Algorithm(), hash: d.Digest.Algorithm().Hash()}
	if s.place(d) != nil {
		if in.size, err = io.CopyBuffer(in.hash, posted, make([]byte, verifyBuffer)); err != nil {
			return err
		}
		return in.check(d)
	}
	return s.copy(posted, d)
}

// verifyBuffer is how much is read at once of a blob that stays where it is, in bytes.
const verifyBuffer = 256 << 10

// copy brings a blob into the store.
func (s *contentsSource) copy(r io.Reader, d ocispec.Descriptor) error {
	in, err := s.im.s.newIngest()
	if err != nil {
		return err
	}
	defer in.discard()
	in.algorithm, in.hash = d.Digest.Algorithm(), d.Digest.Algorithm().Hash()
	if _, err := io.Copy(in, r); err != nil {
		return err
	}
	return in.commit(d)
}

// place tells where a layer lies in an uncompressed archive, for a store that will not
// need it again.
func (s *contentsSource) place(d ocispec.Descriptor) *place {
	t, ok := s.c.(*tarContents)
	if !ok || !s.im.s.cfg.Transient {
		return nil
	}
	m, err := t.find(blobName(d.Digest))
	if err != nil || m.size != d.Size || m.size == 0 {
		return nil
	}
	// The open file, whatever its name is of by now.
	return &place{path: fmt.Sprintf("/proc/self/fd/%d", t.f.Fd()), offset: m.offset}
}
