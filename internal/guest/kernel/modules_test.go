// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// testModules are tables as depmod writes them, with all that matters to the order.
var testModules = map[string]string{
	"modules.dep": `# a comment
kernel/drivers/virtio/virtio_ring.ko:
kernel/drivers/virtio/virtio.ko: kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/block/virtio_blk.ko.xz: kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/char/hw_random/virtio-rng.ko.zst: kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko
kernel/lib/libcrc32c.ko:
kernel/crypto/crc32c_generic.ko:
kernel/crypto/crc32c-intel.ko:
kernel/fs/erofs/erofs.ko: kernel/lib/libcrc32c.ko
kernel/egg.ko: kernel/hen.ko
kernel/hen.ko: kernel/egg.ko
kernel/broken.ko: kernel/nowhere.ko
`,
	"modules.builtin": "kernel/fs/ext4/ext4.ko\nkernel/crypto/sha256.ko\n",
	"modules.softdep": "# Soft dependencies\nsoftdep libcrc32c pre: crc32c\nsoftdep erofs pre: lz4 sha256 post: egg\nsoftdep odd\n",
	"modules.alias":   "alias crc32c crc32c_intel\nalias pci:v00001AF4d* virtio_ring\nalias lz4\n",
}

func loadTestModules(t *testing.T, change map[string]string) *Modules {
	t.Helper()
	dir := t.TempDir()
	for name, text := range testModules {
		if other, ok := change[name]; ok {
			text = other
		}
		writeFile(t, filepath.Join(dir, name), []byte(text))
	}
	if text, ok := change["modules.builtin.modinfo"]; ok {
		writeFile(t, filepath.Join(dir, "modules.builtin.modinfo"), []byte(text))
	}
	m, err := LoadModules(dir)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestResolveOrder(t *testing.T) {
	t.Parallel()
	m := loadTestModules(t, nil)
	for name, test := range map[string]struct{ wanted, order string }{
		"nothing":                    {"", ""},
		"alone":                      {"virtio_ring", "virtio_ring"},
		"dependencies first":         {"virtio_blk", "virtio_ring virtio virtio_blk"},
		"each once":                  {"virtio_blk virtio_rng virtio virtio_blk", "virtio_ring virtio virtio_blk virtio_rng"},
		"dash is underscore":         {"virtio-rng", "virtio_ring virtio virtio_rng"},
		"built in is skipped":        {"ext4 virtio_ring", "virtio_ring"},
		"soft dependency by alias":   {"erofs", "crc32c_intel libcrc32c erofs"},
		"order of the wish is kept":  {"erofs virtio", "crc32c_intel libcrc32c erofs virtio_ring virtio"},
		"soft dependency by its own": {"libcrc32c", "crc32c_intel libcrc32c"},
	} {
		modules, err := m.Resolve(strings.Fields(test.wanted))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var order []string
		for _, module := range modules {
			order = append(order, module.Name)
		}
		if !slices.Equal(order, strings.Fields(test.order)) {
			t.Errorf("%s: %q resolves to %q, want %q", name, test.wanted, order, test.order)
		}
	}
}

func TestResolveNamesWhatIsWrong(t *testing.T) {
	t.Parallel()
	m := loadTestModules(t, nil)
	for wanted, want := range map[string][]string{
		"nbd":    {"no module nbd", Mend},
		"egg":    {"egg depends on itself", "modules.dep"},
		"broken": {"nowhere", "for module broken"},
	} {
		_, err := m.Resolve([]string{wanted})
		if err == nil {
			t.Errorf("%s resolves, want an error", wanted)
			continue
		}
		for _, text := range want {
			if !strings.Contains(err.Error(), text) {
				t.Errorf("%s: error %q does not have %q", wanted, err, text)
			}
		}
	}
}

func TestBuiltinServesAlias(t *testing.T) {
	t.Parallel()
	m := loadTestModules(t, map[string]string{
		"modules.builtin.modinfo": "crc32c_generic.license=GPL\x00crc32c_generic.alias=crc32c\x00crc32c_generic.author=A\nB\x00",
	})
	modules, err := m.Resolve([]string{"libcrc32c"})
	if err != nil || len(modules) != 1 {
		t.Errorf("resolves to %v, %v; want libcrc32c alone: crc32c is built in under another name", modules, err)
	}
}

func TestLoadModulesMissing(t *testing.T) {
	t.Parallel()
	_, err := LoadModules(t.TempDir())
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), Mend) {
		t.Errorf("error is %v, want one of a missing file that names the mend", err)
	}
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "modules.dep"), bytes.Repeat([]byte("x"), 2<<20))
	if _, err := LoadModules(dir); err == nil {
		t.Error("a line of 2 MB was taken")
	}
	writeFile(t, filepath.Join(dir, "modules.dep"), nil)
	if err := os.Mkdir(filepath.Join(dir, "modules.alias"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadModules(dir); err == nil || !strings.Contains(err.Error(), "modules.alias") {
		t.Errorf("error is %v, want one that names modules.alias", err)
	}
}

func TestModuleRead(t *testing.T) {
	t.Parallel()
	contents := bytes.Repeat([]byte("a module "), 1000)
	for suffix, data := range map[string][]byte{
		".ko": contents, ".ko.gz": gzipped(contents), ".ko.zst": zstdCompressed(t, contents), ".ko.xz": xzCompressed(t, contents),
	} {
		path := writeFile(t, filepath.Join(t.TempDir(), "m"+suffix), data)
		got, err := Module{Name: "m", Path: path}.Read()
		if err != nil || !bytes.Equal(got, contents) {
			t.Errorf("%s: read %d bytes, %v; want the %d put in", suffix, len(got), err, len(contents))
		}
	}
}

func TestModuleReadRefuses(t *testing.T) {
	t.Parallel()
	bomb := zstdCompressed(t, make([]byte, maxModule+1))
	for name, data := range map[string][]byte{
		"bomb": bomb, "broken": []byte("\xfd7zXZ\x00 and then nothing of it"), "broken head": []byte("\x1f\x8b\x08"),
		"too large": make([]byte, maxModule+1),
	} {
		path := writeFile(t, filepath.Join(t.TempDir(), "m.ko"), data)
		if got, err := (Module{Name: "m", Path: path}).Read(); err == nil || !strings.Contains(err.Error(), "module m") && !strings.Contains(err.Error(), path) {
			t.Errorf("%s: read %d bytes, error %v; want one that names the module", name, len(got), err)
		}
	}
	if _, err := (Module{Name: "gone", Path: "/nowhere/gone.ko"}).Read(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing module: %v", err)
	}
}

func TestWithoutSignature(t *testing.T) {
	t.Parallel()
	signed := func(body, signature string, length uint32) []byte {
		data := append([]byte(body+signature), make([]byte, 8)...)
		data = binary.BigEndian.AppendUint32(data, length)
		return append(data, signatureMagic...)
	}
	for name, test := range map[string]struct {
		data []byte
		want string // empty means unchanged
	}{
		"signed":        {signed("module", "signature", 9), "module"},
		"not signed":    {[]byte("module"), ""},
		"only magic":    {[]byte(signatureMagic), ""},
		"length lies":   {signed("module", "signature", 1000), ""},
		"length of all": {signed("", "signature", 10), ""},
	} {
		want := []byte(test.want)
		if test.want == "" {
			want = test.data
		}
		if got := WithoutSignature(test.data); !bytes.Equal(got, want) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

// All modules that guests need, as this machine's depmod knows them.
func TestResolveOnTheHost(t *testing.T) {
	t.Parallel()
	k, err := Find(Options{})
	if errors.Is(err, ErrNotFound) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	m, err := LoadModules(k.ModulesDir)
	if err != nil {
		t.Fatal(err)
	}
	modules, err := m.Resolve(append(GuestModules(), PrivilegedModules()...))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, module := range modules {
		for _, before := range m.depends[module.Name] {
			if !seen[before] {
				t.Errorf("%s comes before %s, which it depends on", module.Name, before)
			}
		}
		seen[module.Name] = true
		data, err := module.Read()
		if err != nil || !bytes.HasPrefix(data, []byte("\x7fELF")) {
			t.Errorf("%s is no module: %v", module.Path, err)
		}
	}
}

func FuzzModules(f *testing.F) {
	f.Add(testModules["modules.dep"], testModules["modules.softdep"], testModules["modules.alias"])
	f.Fuzz(func(t *testing.T, dep, softdep, alias string) {
		m := newModules("/modules")
		if err := scanLines(strings.NewReader(dep), m.addDependencies); err != nil {
			return
		}
		_ = scanLines(strings.NewReader(softdep), m.addSoftDependency)
		_ = scanLines(strings.NewReader(alias), m.addAlias)
		for name := range m.files {
			modules, err := m.Resolve([]string{name})
			if err != nil && len(modules) > 0 {
				t.Errorf("%q: modules and an error: %v, %v", name, modules, err)
			}
			for _, module := range modules {
				if !strings.HasPrefix(module.Path, "/modules/") {
					t.Errorf("module %q lies outside of its folder", module.Path)
				}
			}
		}
	})
}
