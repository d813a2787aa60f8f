// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// testHost is a host's /boot and /lib/modules.
type testHost struct {
	t   *testing.T
	dir string
}

func newTestHost(t *testing.T) testHost {
	t.Helper()
	h := testHost{t, t.TempDir()}
	for _, dir := range []string{h.options().BootDir, h.options().ModulesRoot} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

func (h testHost) options() Options {
	return Options{BootDir: filepath.Join(h.dir, "boot"), ModulesRoot: filepath.Join(h.dir, "modules"), Modules: []string{"virtio_blk"}}
}

// addKernel installs a kernel of that version; the modules have to be added.
func (h testHost) addKernel(version string) string {
	image := makeBzImage(gzipped(makeELF(testELF{})))
	copy(image[0x300:], version+"\x00")
	return writeFile(h.t, filepath.Join(h.options().BootDir, "vmlinuz-"+version), image)
}

func (h testHost) addModules(version, dep string) {
	writeFile(h.t, filepath.Join(h.options().ModulesRoot, version, "modules.dep"), []byte(dep))
}

const blkDep = "kernel/drivers/block/virtio_blk.ko:\n"

func TestFindPicksTheBest(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ kernels, modules, want string }{
		"only one":                        {"6.1.0-9-amd64", "6.1.0-9-amd64", "6.1.0-9-amd64"},
		"newest by number, not by letter": {"6.1.0-9-amd64 6.1.0-56-amd64 6.1.0-100-amd64", "6.1.0-9-amd64 6.1.0-56-amd64 6.1.0-100-amd64", "6.1.0-100-amd64"},
		"cloud before newer":              {"6.1.0-9-cloud-amd64 6.12.0-1-amd64", "6.1.0-9-cloud-amd64 6.12.0-1-amd64", "6.1.0-9-cloud-amd64"},
		"newest cloud":                    {"6.1.0-9-cloud-amd64 6.1.0-10-cloud-amd64", "6.1.0-9-cloud-amd64 6.1.0-10-cloud-amd64", "6.1.0-10-cloud-amd64"},
		"next if modules are missing":     {"6.1.0-9-cloud-amd64 6.12.0-1-amd64", "6.12.0-1-amd64", "6.12.0-1-amd64"},
		"other names of version":          {"6.18.2-arch1-1", "6.18.2-arch1-1", "6.18.2-arch1-1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newTestHost(t)
			for _, version := range strings.Fields(test.kernels) {
				h.addKernel(version)
			}
			for _, version := range strings.Fields(test.modules) {
				h.addModules(version, blkDep)
			}
			k, err := Find(h.options())
			if err != nil {
				t.Fatal(err)
			}
			want := Kernel{
				Path:       filepath.Join(h.options().BootDir, "vmlinuz-"+test.want),
				Version:    test.want,
				ModulesDir: filepath.Join(h.options().ModulesRoot, test.want),
			}
			if k != want {
				t.Errorf("Find = %+v, want %+v", k, want)
			}
		})
	}
}

func TestFindRefuses(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		prepare func(h testHost, o *Options)
		want    []string // all in the error
		none    bool     // the error is ErrNotFound
	}{
		"nothing installed":  {func(testHost, *Options) {}, []string{Mend}, true},
		"no boot folder":     {func(_ testHost, o *Options) { o.BootDir += "/missing" }, []string{Mend, "is not there"}, true},
		"boot is a file":     {func(h testHost, o *Options) { o.BootDir = h.addKernel("1") }, []string{"looking for kernels"}, false},
		"no modules":         {func(h testHost, _ *Options) { h.addKernel("6.1") }, []string{"modules.dep", Mend}, true},
		"module missing":     {func(h testHost, _ *Options) { h.addKernel("6.1"); h.addModules("6.1", "kernel/a.ko:\n") }, []string{"virtio_blk", Mend}, true},
		"broken modules.dep": {func(h testHost, _ *Options) { h.addKernel("6.1"); h.addModules("6.1", "what is this\n") }, []string{"modules.dep"}, true},
		"module outside":     {func(h testHost, _ *Options) { h.addKernel("6.1"); h.addModules("6.1", "../../virtio_blk.ko:\n") }, []string{"modules.dep"}, true},
		"version is a path":  {func(h testHost, _ *Options) { h.addKernel("a"); breakVersion(h, "../../etc") }, []string{"names no version"}, true},
		"configured missing": {func(h testHost, o *Options) { o.Path = h.dir + "/nothing" }, []string{"configured kernel", Mend}, false},
		"configured broken":  {func(h testHost, o *Options) { o.Path = writeFile(h.t, h.dir+"/x", []byte("x")) }, []string{"configured kernel", "bzImage"}, false},
		"configured ELF without version": {func(h testHost, o *Options) {
			elf := bytes.ReplaceAll(makeELF(testELF{}), bannerStart, []byte("Linus version "))
			o.Path = writeFile(h.t, h.dir+"/vmlinux", elf)
		}, []string{"names no version"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newTestHost(t)
			o := h.options()
			test.prepare(h, &o)
			k, err := Find(o)
			if err == nil {
				t.Fatalf("Find = %+v, want an error", k)
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not have %q", err, want)
				}
			}
			if errors.Is(err, ErrNotFound) != test.none {
				t.Errorf("errors.Is(%q, ErrNotFound) = %v, want %v", err, !test.none, test.none)
			}
		})
	}
}

func breakVersion(h testHost, version string) {
	image := makeBzImage(gzipped(makeELF(testELF{})))
	copy(image[0x300:], version+"\x00")
	writeFile(h.t, filepath.Join(h.options().BootDir, "vmlinuz-a"), image)
}

func TestFindConfiguredELF(t *testing.T) {
	t.Parallel()
	h := newTestHost(t)
	o := h.options()
	o.Path = writeFile(t, filepath.Join(h.dir, "vmlinux"), makeELF(testELF{}))
	h.addModules(testVersion, blkDep)
	if k, err := Find(o); err != nil || k.Version != testVersion {
		t.Errorf("Find = %+v, %v; want version %s out of the ELF's banner", k, err, testVersion)
	}
}

func TestFindReadsWhetherSignaturesAreNeeded(t *testing.T) {
	t.Parallel()
	for config, want := range map[string]bool{
		"CONFIG_MODULE_SIG=y\n# CONFIG_MODULE_SIG_FORCE is not set\n": true,
		"CONFIG_MODULE_SIG_FORCE=y\n":                                 false,
		"":                                                            false,
	} {
		h := newTestHost(t)
		h.addKernel(testVersion)
		h.addModules(testVersion, blkDep)
		if config != "" {
			writeFile(t, filepath.Join(h.options().BootDir, "config-"+testVersion), []byte(config))
		}
		if k, err := Find(h.options()); err != nil || k.UnsignedModules != want {
			t.Errorf("config %q: UnsignedModules is %v, %v; want %v", config, k.UnsignedModules, err, want)
		}
	}
}

// The banner may lie across two of the pieces in which a kernel is searched.
func TestELFVersionAcrossPieces(t *testing.T) {
	t.Parallel()
	for _, at := range []int{0, 64<<10 - maxVersionString, 64<<10 - 20, 64<<10 - 5, 64 << 10, 127<<10 + 900} {
		data := append(make([]byte, at), "Linux version "+testVersion+" (x)"...)
		if got, err := elfVersion(bytes.NewReader(data)); err != nil || got != testVersion {
			t.Errorf("banner at %d: version %q, %v; want %q", at, got, err, testVersion)
		}
	}
}

func TestCompareVersions(t *testing.T) {
	t.Parallel()
	sorted := []string{"5.10.0-1", "6.1.0-9", "6.1.0-10", "6.1.0-56", "6.1.0-056-b", "6.12.0", "6.100.0"}
	for i, a := range sorted {
		for j, b := range sorted {
			if got, want := compareVersions(a, b) < 0, i < j; got != want {
				t.Errorf("%q before %q: %v, want %v", a, b, got, want)
			}
		}
	}
	if !slices.IsSortedFunc(sorted, compareVersions) {
		t.Error("the order is not total")
	}
}

func TestDefaultsAreTheHosts(t *testing.T) {
	t.Parallel()
	o := Options{}.withDefaults()
	if o.BootDir != "/boot" || o.ModulesRoot != "/lib/modules" || !slices.Equal(o.Modules, GuestModules()) {
		t.Errorf("defaults are %+v", o)
	}
	if _, err := Find(Options{}); err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, fs.ErrPermission) {
		t.Error(err)
	}
}
