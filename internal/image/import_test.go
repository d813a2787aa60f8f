// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package image_test

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/micropod/micropod/internal/image"
	"github.com/micropod/micropod/internal/image/imagetest"
)

// TestImportHostile imports what must be refused, and leave nothing.
func TestImportHostile(t *testing.T) {
	t.Parallel()
	b := small("hostile").Build()
	oci := func(change func(files map[string]string)) []byte {
		f := b.LayoutFiles("a:1")
		change(f)
		return imagetest.Archive(f)
	}
	docker := func(change func(files map[string]string)) []byte {
		f := b.DockerFiles("a:1")
		change(f)
		return imagetest.Archive(f)
	}
	withIndex := func(list ...ocispec.Descriptor) []byte {
		return oci(func(f map[string]string) { f["index.json"] = string(imagetest.Index(list...)) })
	}
	withDigest := func(d string) []byte {
		return oci(func(f map[string]string) {
			f["index.json"] = strings.ReplaceAll(f["index.json"], b.Digest().String(), d)
		})
	}
	withManifest := func(m string) []byte {
		return oci(func(f map[string]string) {
			d := imagetest.Descriptor([]byte(m), ocispec.MediaTypeImageManifest)
			f[imagetest.BlobPath([]byte(m))] = m
			f["index.json"] = string(imagetest.Index(d))
		})
	}
	layer := imagetest.BlobPath(b.Layers[1])
	config := imagetest.BlobPath(b.Config)
	wrongDiff := func() []byte {
		w := small("hostile").Build()
		w.Config = bytes.Replace(w.Config, []byte(imagetest.Descriptor(w.Tars[0], "").Digest), []byte(imagetest.Descriptor([]byte("x"), "").Digest), 1)
		w.Manifest = bytes.Replace(w.Manifest, []byte(b.ID()), []byte(w.ID()), 1)
		return w.OCIArchive("a:1")
	}
	bomb := imagetest.Gzip.Pack(make([]byte, 64<<20))
	for name, c := range map[string]struct {
		archive []byte
		want    error
	}{
		"empty":                  {nil, image.ErrCorrupt},
		"noise":                  {noise(100_000, "n"), image.ErrCorrupt},
		"zeros":                  {make([]byte, 10240), image.ErrCorrupt},
		"cut gzip":               {imagetest.Gzip.Pack(b.OCIArchive("a:1"))[:1000], image.ErrCorrupt},
		"cut tar":                {b.OCIArchive("a:1")[:200_000], image.ErrCorrupt},
		"gzip magic only":        {[]byte("\x1f\x8b\x08"), image.ErrCorrupt},
		"zstd magic only":        {[]byte("\x28\xb5\x2f\xfd"), image.ErrCorrupt},
		"bomb":                   {bomb, image.ErrCorrupt},
		"layer changed":          {oci(func(f map[string]string) { f[layer] = f[layer][1:] + "x" }), image.ErrCorrupt},
		"layer cut":              {oci(func(f map[string]string) { f[layer] = f[layer][:99] }), image.ErrCorrupt},
		"layer missing":          {oci(func(f map[string]string) { delete(f, layer) }), image.ErrCorrupt},
		"config missing":         {oci(func(f map[string]string) { delete(f, config) }), image.ErrCorrupt},
		"config changed":         {oci(func(f map[string]string) { f[config] = "{}" }), image.ErrCorrupt},
		"wrong diff id":          {wrongDiff(), nil},
		"digest with path":       {withDigest("sha256:../../../../etc/passwd"), image.ErrCorrupt},
		"digest of unknown kind": {withDigest("md5:d41d8cd98f00b204e9800998ecf8427e"), image.ErrCorrupt},
		"digest in capitals":     {withDigest("sha256:" + strings.ToUpper(b.Digest().Encoded())), image.ErrCorrupt},
		"index nested deep":      {oci(func(f map[string]string) { f["index.json"] = strings.Repeat("[", 100_000) }), image.ErrCorrupt},
		"manifest nested deep":   {withManifest(`{"schemaVersion":2,"config":` + strings.Repeat(`{"a":`, 100_000)), image.ErrCorrupt},
		"index that holds itself": {oci(func(f map[string]string) {
			// No content can have its own digest, so the blob of that name is not what it says.
			self := imagetest.Descriptor([]byte("self"), ocispec.MediaTypeImageIndex)
			self.Size = int64(len(imagetest.Index(self)))
			f["index.json"] = string(imagetest.Index(self))
			f[imagetest.BlobPath([]byte("self"))] = f["index.json"]
		}), image.ErrCorrupt},
		"index called a manifest": {withIndex(ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: b.Digest(), Size: int64(len(b.Manifest))}), image.ErrCorrupt},
		"index too large":         {oci(func(f map[string]string) { f["index.json"] += strings.Repeat(" ", 5<<20) }), image.ErrCorrupt},
		"index of nothing":        {withIndex(), image.ErrCorrupt},
		"negative size":           {withIndex(ocispec.Descriptor{MediaType: b.ManifestType, Digest: b.Digest(), Size: -1}), image.ErrCorrupt},
		"index and manifest":      {withManifest(`{"schemaVersion":2,"manifests":[],"config":{},"layers":[]}`), image.ErrCorrupt},
		"schema 1":                {withManifest(`{"schemaVersion":1,"fsLayers":[]}`), image.ErrUnsupported},
		"neither":                 {withManifest(`{"schemaVersion":2}`), image.ErrCorrupt},
		"artifact":                {withManifest(strings.Replace(string(b.Manifest), ocispec.MediaTypeImageConfig, "application/vnd.cncf.helm.config.v1+json", 1)), image.ErrUnsupported},
		"encrypted layer":         {withManifest(strings.Replace(string(b.Manifest), "tar+gzip", "tar+gzip+encrypted", 1)), image.ErrUnsupported},
		"strange layer":           {withManifest(strings.Replace(string(b.Manifest), "vnd.oci.image.layer.v1.tar+gzip", "vnd.in-toto+json", 1)), image.ErrUnsupported},
		"layer too few":           {withManifest(`{"schemaVersion":2,"config":{"mediaType":"` + ocispec.MediaTypeImageConfig + `","digest":"` + b.ID().String() + `","size":` + itoa(len(b.Config)) + `},"layers":[]}`), image.ErrCorrupt},
		"bad name":                {b.OCIArchive("Not/A Valid:Name"), image.ErrInvalidReference},
		"config nested deep":      {oci(func(f map[string]string) { f[config] = strings.Repeat(`{"config":`, 100_000) }), image.ErrCorrupt},
		"docker: layer missing":   {docker(func(f map[string]string) { deleteSuffix(f, "layer.tar") }), image.ErrCorrupt},
		"docker: layer changed":   {docker(func(f map[string]string) { changeSuffix(f, "layer.tar", "nothing") }), image.ErrCorrupt},
		"docker: layer empty":     {docker(func(f map[string]string) { changeSuffix(f, "layer.tar", "") }), image.ErrCorrupt},
		"docker: link loop":       {docker(func(f map[string]string) { changeSuffix(f, "layer.tar", "-> layer.tar") }), image.ErrCorrupt},
		"docker: link outside":    {docker(func(f map[string]string) { changeSuffix(f, "layer.tar", "-> ../../../../etc/passwd") }), image.ErrCorrupt},
		"docker: config not JSON": {docker(func(f map[string]string) { f[b.ID().Encoded()+".json"] = "[" }), image.ErrCorrupt},
		"docker: bad name":        {b.DockerArchive("A:B:C"), image.ErrInvalidReference},
		"docker: config for path": {docker(func(f map[string]string) { f["manifest.json"] = `[{"Config":"/etc/passwd"}]` }), nil},
		"docker: too few layers":  {docker(func(f map[string]string) { f["manifest.json"] = `[{"Config":"` + b.ID().Encoded() + `.json"}]` }), image.ErrCorrupt},
		"docker: names by the mass": {docker(func(f map[string]string) {
			f["manifest.json"] = strings.Replace(f["manifest.json"], `"a:1"`, `"a:1"`+strings.Repeat(`,"a:1"`, 2000), 1)
		}), image.ErrCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			s := open(t, image.Config{Root: root, Limits: image.Limits{Ratio: 20}})
			imgs, err := s.Import(ctxFor(t), bytes.NewReader(c.archive), image.ImportOptions{})
			if name == "docker: config for path" { // then it is a root file system
				if err != nil || imgs[0].Config.Config.Cmd != nil {
					t.Errorf("got %v, %v; want a plain root file system", imgs, err)
				}
				return
			}
			if err == nil || c.want != nil && !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			if left := leftovers(t, root); len(left) != 0 {
				t.Errorf("left: %q", left)
			}
		})
	}
}

func deleteSuffix(f map[string]string, suffix string) { changeSuffix(f, suffix, "\x00") }

func changeSuffix(f map[string]string, suffix, to string) {
	for _, name := range slices.Sorted(maps.Keys(f)) {
		if strings.HasSuffix(name, suffix) {
			f[name] = to
			if to == "\x00" {
				delete(f, name)
			}
			return
		}
	}
}

// TestImportSkopeo imports what skopeo makes of an image, in each form.
func TestImportSkopeo(t *testing.T) {
	t.Parallel()
	skopeo, err := exec.LookPath("skopeo")
	if err != nil {
		t.Skip("skopeo is not installed")
	}
	b := small("skopeo").Build()
	dir := t.TempDir()
	if err := b.WriteLayout(dir+"/in", "v1"); err != nil {
		t.Fatal(err)
	}
	var first *image.Image
	for _, c := range []struct{ to, path, name string }{
		{"oci:" + dir + "/oci:busybox:1", dir + "/oci", "docker.io/library/busybox:1"},
		{"oci-archive:" + dir + "/oci.tar:example.org/x:2", dir + "/oci.tar", "example.org/x:2"},
		{"docker-archive:" + dir + "/docker.tar:busybox:3", dir + "/docker.tar", "docker.io/library/busybox:3"},
	} {
		if out, err := exec.Command(skopeo, "--insecure-policy", "copy", "oci:"+dir+"/in:v1", c.to).CombinedOutput(); err != nil {
			t.Fatalf("skopeo: %v: %s", err, out)
		}
		imgs, err := open(t, image.Config{}).ImportPath(ctxFor(t), c.path, image.ImportOptions{})
		if err != nil || len(imgs) != 1 {
			t.Fatalf("%s: %d images, %v", c.to, len(imgs), err)
		}
		if !slices.Equal(imgs[0].Names, []string{c.name}) {
			t.Errorf("%s: names %q, want %s", c.to, imgs[0].Names, c.name)
		}
		if first == nil {
			first = imgs[0]
		}
		if imgs[0].RootFSDigest != first.RootFSDigest || !slices.Equal(imgs[0].Config.Config.Cmd, first.Config.Config.Cmd) {
			t.Errorf("%s: another root file system or command than from oci:", c.to)
		}
	}
}

// TestSkopeoReadsStore: the store is an OCI layout for others.
func TestSkopeoReadsStore(t *testing.T) {
	t.Parallel()
	skopeo, err := exec.LookPath("skopeo")
	if err != nil {
		t.Skip("skopeo is not installed")
	}
	root := t.TempDir()
	s := open(t, image.Config{Root: root})
	img := mustImport(t, s, small("read").Build().OCIArchive("busybox:1"), image.ImportOptions{})
	out, err := exec.Command(skopeo, "inspect", "--format", "{{.Digest}}", "oci:"+root+":"+img.Names[0]).CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != img.Digest.String() {
		t.Errorf("skopeo says %q, %v; want %s", out, err, img.Digest)
	}
}

// TestImportOldDockerLinks: docker save used to link equal layers.
func TestImportOldDockerLinks(t *testing.T) {
	t.Parallel()
	in := small("links")
	in.Layers = append(in.Layers, in.Layers[0])
	b := in.Build()
	files := b.DockerFiles("a:1")
	manifest := files["manifest.json"]
	first := manifest[strings.Index(manifest, `"Layers":["`)+len(`"Layers":["`):][:64]
	files[strings.Repeat("0", 64)+"/layer.tar"] = "-> ../" + first + "/layer.tar"
	last := strings.LastIndex(manifest, first)
	files["manifest.json"] = manifest[:last] + strings.Repeat("0", 64) + manifest[last+64:]
	img := mustImport(t, open(t, image.Config{}), imagetest.Archive(files), image.ImportOptions{})
	if img.ID != b.ID() || len(img.Layers) != 3 {
		t.Errorf("got %s with %d layers, want %s with 3", img.ID, len(img.Layers), b.ID())
	}
}

// TestImportNewDocker: docker save since version 25 writes an OCI layout whose
// names may be in manifest.json alone.
func TestImportNewDocker(t *testing.T) {
	t.Parallel()
	b := small("new").Build()
	files := b.LayoutFiles("")
	files["manifest.json"] = `[{"Config":"` + imagetest.BlobPath(b.Config) + `","RepoTags":["busybox:9"],"Layers":["` +
		imagetest.BlobPath(b.Layers[0]) + `","` + imagetest.BlobPath(b.Layers[1]) + `"]}]`
	img := mustImport(t, open(t, image.Config{}), imagetest.Archive(files), image.ImportOptions{})
	if img.ID != b.ID() || !slices.Equal(img.Names, []string{"docker.io/library/busybox:9"}) {
		t.Errorf("got %s, %q", img.ID, img.Names)
	}
	// Without the layout's index manifest.json leads.
	delete(files, "index.json")
	img = mustImport(t, open(t, image.Config{}), imagetest.Archive(files), image.ImportOptions{})
	if img.ID != b.ID() || !slices.Equal(img.Names, []string{"docker.io/library/busybox:9"}) {
		t.Errorf("without index: got %s, %q", img.ID, img.Names)
	}
}

// TestImportSeveral imports an archive of two images, one of them twice named
// and for two platforms.
func TestImportSeveral(t *testing.T) {
	t.Parallel()
	one, two := small("one").Build(), small("two").Build()
	foreign := small("arm")
	foreign.Platform = ocispec.Platform{OS: "linux", Architecture: "s390x"}
	three := foreign.Build()
	files := map[string]string{}
	var list []ocispec.Descriptor
	for _, e := range []struct {
		b    *imagetest.Built
		name string
	}{{one, "a:1"}, {three, "a:1"}, {one, "a:2"}, {two, "b:1"}} {
		maps.Copy(files, e.b.LayoutFiles(""))
		d := e.b.Descriptor()
		d.Annotations = map[string]string{"io.containerd.image.name": e.name, ocispec.AnnotationRefName: "ignored"}
		list = append(list, d)
	}
	files["index.json"] = string(imagetest.Index(list...))
	s := open(t, image.Config{})
	imgs, err := s.Import(ctxFor(t), bytes.NewReader(imagetest.Archive(files)), image.ImportOptions{})
	if err != nil || len(imgs) != 2 {
		t.Fatalf("%d images, %v; want 2", len(imgs), err)
	}
	if a, err := s.Get("a:2"); err != nil || a.ID != one.ID() || len(a.Names) != 2 {
		t.Errorf("a:2 is %+v, %v", a, err)
	}
	_, err = s.Import(ctxFor(t), bytes.NewReader(imagetest.Archive(files)), image.ImportOptions{Reference: "c"})
	if !errors.Is(err, image.ErrAmbiguous) {
		t.Errorf("one name for two images: %v, want ErrAmbiguous", err)
	}
	imgs, err = open(t, image.Config{}).Import(ctxFor(t), bytes.NewReader(imagetest.Archive(files)), image.ImportOptions{Platform: "linux/s390x", Reference: "c"})
	if err != nil || len(imgs) != 1 || imgs[0].ID != three.ID() {
		t.Errorf("for s390x: %v, %v", imgs, err)
	}
}

func TestImportFolderHostile(t *testing.T) {
	t.Parallel()
	b := small("folder").Build()
	for name, change := range map[string]func(dir string) error{
		"no layout":    func(dir string) error { return os.Remove(dir + "/oci-layout") },
		"empty layout": func(dir string) error { return os.WriteFile(dir+"/oci-layout", []byte("{}"), 0o600) },
		"index is a link out": func(dir string) error {
			return errors.Join(os.Remove(dir+"/index.json"), os.Symlink("/etc/passwd", dir+"/index.json"))
		},
		"layer is a folder": func(dir string) error {
			p := filepath.Join(dir, imagetest.BlobPath(b.Layers[0]))
			return errors.Join(os.Remove(p), os.Mkdir(p, 0o755))
		},
		"layer is a fifo": func(dir string) error {
			p := filepath.Join(dir, imagetest.BlobPath(b.Layers[0]))
			return errors.Join(os.Remove(p), exec.Command("mkfifo", p).Run())
		},
	} {
		dir := t.TempDir()
		if err := b.WriteLayout(dir, "a:1"); err != nil {
			t.Fatal(err)
		}
		if err := change(dir); err != nil {
			t.Fatal(err)
		}
		root := t.TempDir()
		if _, err := open(t, image.Config{Root: root}).ImportPath(ctxFor(t), dir, image.ImportOptions{}); err == nil {
			t.Errorf("%s: imported", name)
		}
		if left := leftovers(t, root); len(left) != 0 {
			t.Errorf("%s: left %q", name, left)
		}
	}
	s := open(t, image.Config{})
	if _, err := s.ImportPath(ctxFor(t), "/does/not/exist", image.ImportOptions{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want ErrNotExist", err)
	}
	if _, err := s.ImportPath(ctxFor(t), "/dev/null", image.ImportOptions{}); !errors.Is(err, image.ErrUnsupported) {
		t.Errorf("a device: %v, want ErrUnsupported", err)
	}
}

func TestImportCancelled(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := open(t, image.Config{Root: root})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := s.Import(ctx, bytes.NewReader(small("c").Build().OCIArchive("a:1")), image.ImportOptions{Progress: func(image.Event) {}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	if left := leftovers(t, root); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
}

func TestConvert(t *testing.T) {
	t.Parallel()
	reg := imagetest.StartRegistry(t, imagetest.RegistryOptions{})
	b := small("convert").Build()
	ref, err := reg.Push(b, "convert", "v1")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	archive := filepath.Join(dir, "a.tar")
	if err := os.WriteFile(archive, b.DockerArchive(), 0o600); err != nil {
		t.Fatal(err)
	}
	ociArchive := filepath.Join(dir, "oci.tar")
	if err := os.WriteFile(ociArchive, b.OCIArchive(""), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := image.Config{Convert: convert, CertDirs: []string{}}
	want := mustImport(t, open(t, image.Config{}), b.OCIArchive(""), image.ImportOptions{})
	for name, run := range map[string]func(out string) (*image.Image, error){
		"reference": func(out string) (*image.Image, error) {
			return image.ConvertReference(ctxFor(t), cfg, ref, out, image.PullOptions{})
		},
		"file": func(out string) (*image.Image, error) {
			return image.ConvertFile(ctxFor(t), cfg, archive, out, image.ImportOptions{})
		},
		"oci file": func(out string) (*image.Image, error) {
			return image.ConvertFile(ctxFor(t), cfg, ociArchive, out, image.ImportOptions{})
		},
		"stream": func(out string) (*image.Image, error) {
			return image.ConvertStream(ctxFor(t), cfg, bytes.NewReader(b.OCIArchive("")), out, image.ImportOptions{})
		},
	} {
		out := filepath.Join(dir, name+".erofs")
		img, err := run(out)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		st, err := os.Stat(out)
		if err != nil || st.Size() != want.RootFSSize || img.RootFS != out || img.RootFSDigest != want.RootFSDigest {
			t.Errorf("%s: %v, %+v; want %d bytes at %s", name, err, img, want.RootFSSize, out)
		}
	}
	if _, err := image.ConvertReference(ctxFor(t), cfg, reg.Addr+"/no/such", dir+"/none", image.PullOptions{}); !errors.Is(err, image.ErrNotFound) {
		t.Errorf("unknown: %v", err)
	}
	if _, err := image.ConvertFile(ctxFor(t), cfg, archive, dir+"/no/folder/x", image.ImportOptions{}); err == nil {
		t.Error("wrote into a folder that is not there")
	}
	entries, _ := os.ReadDir(dir)
	if len(entries) != 6 {
		t.Errorf("%d files, want the 2 archives and 4 images: %v", len(entries), entries)
	}
}

// Layers of an archive that are converted where they lie are verified all the same.
func TestConvertChangedArchive(t *testing.T) {
	t.Parallel()
	b := small("changed").Build()
	archive := b.OCIArchive("")
	last := b.Layers[len(b.Layers)-1]
	at := bytes.Index(archive, last)
	archive[at+len(last)-3]++ // in what gzip knows of the length, after the tar's end
	dir := t.TempDir()
	path := filepath.Join(dir, "a.tar")
	if err := os.WriteFile(path, archive, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := image.Config{Convert: convert, CertDirs: []string{}}
	_, err := image.ConvertFile(ctxFor(t), cfg, path, filepath.Join(dir, "out"), image.ImportOptions{})
	if !errors.Is(err, image.ErrCorrupt) || !strings.Contains(err.Error(), "has digest") {
		t.Errorf("got %v, want %v and the digest", err, image.ErrCorrupt)
	}
	if _, err := os.Stat(filepath.Join(dir, "out")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the image is there: %v", err)
	}
}
