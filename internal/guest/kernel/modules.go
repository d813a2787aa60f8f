// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
)

// maxIndex bounds a file that depmod writes (bytes); Debian's full kernel has 600 KB of modules.dep.
const maxIndex = 16 << 20

// BootModules names what a guest needs of its kernel to reach its host and start a first
// container, in the order in which the modules are wanted: the transport, then the
// channel to the host, then the rest.
func BootModules() []string {
	return []string{"virtio_mmio", "virtio_console", "virtio_blk", "virtio_net", "erofs", "overlay", "ext4"}
}

// LateModules names what a guest needs besides, but not for that. The agent loads them when
// they are first needed (vsock on a machine without a port, devices given to a container), before
// a machine is saved, and else soon after boot; see internal/agent/late.go.
func LateModules() []string {
	return []string{"vsock", "vmw_vsock_virtio_transport", "virtio_rng", "virtio_balloon", "fuse", "nbd"}
}

// GuestModules names all that every guest needs of its kernel.
func GuestModules() []string { return append(BootModules(), LateModules()...) }

// PrivilegedModules names what a privileged machine has besides: TAP devices and
// virtualisation of its own.
func PrivilegedModules() []string { return []string{"tun", "kvm-amd"} }

// Modules is what depmod knows of a kernel's modules. It is not changed after
// [LoadModules] and may be shared.
type Modules struct {
	dir      string
	files    map[string]string   // name: path below dir
	depends  map[string][]string // name: names that must be loaded before, as modules.dep lists them
	builtin  map[string]bool     // names and aliases
	softPre  map[string][]string // name: names or aliases to be loaded before if they exist
	provided map[string][]string // alias without wildcards: names
}

func newModules(dir string) *Modules {
	return &Modules{
		dir: dir, files: map[string]string{}, depends: map[string][]string{}, builtin: map[string]bool{},
		softPre: map[string][]string{}, provided: map[string][]string{},
	}
}

// LoadModules reads modules.dep and the other tables of a modules' folder.
func LoadModules(dir string) (*Modules, error) {
	m := newModules(dir)
	err := readLines(filepath.Join(dir, "modules.dep"), m.addDependencies)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("modules are not installed: %w: %s", err, Mend)
	}
	if err != nil {
		return nil, err
	}
	// A kernel may lack these: then nothing is built in, no order is soft.
	for name, add := range map[string]func(string) error{
		"modules.builtin": m.addBuiltin, "modules.softdep": m.addSoftDependency, "modules.alias": m.addAlias,
		"modules.builtin.modinfo": m.addBuiltinAliases,
	} {
		if err := readLines(filepath.Join(dir, name), add); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return m, nil
}

// addDependencies takes "kernel/a.ko.xz: kernel/b.ko.xz kernel/c.ko.xz".
func (m *Modules) addDependencies(line string) error {
	if line[0] == '#' {
		return nil
	}
	file, list, ok := strings.Cut(line, ":")
	if !ok || !filepath.IsLocal(file) {
		return fmt.Errorf("not a line of modules.dep: %q", line)
	}
	name := moduleName(file)
	m.files[name] = file
	for _, dependency := range strings.Fields(list) {
		m.depends[name] = append(m.depends[name], moduleName(dependency))
	}
	return nil
}

func (m *Modules) addBuiltin(line string) error {
	m.builtin[moduleName(line)] = true
	return nil
}

// addSoftDependency takes "softdep NAME pre: A B post: C"; only pre matters to the order.
func (m *Modules) addSoftDependency(line string) error {
	words := strings.Fields(line)
	if len(words) < 4 || words[0] != "softdep" {
		return nil
	}
	pre := false
	for _, word := range words[2:] {
		if strings.HasSuffix(word, ":") {
			pre = word == "pre:"
		} else if pre {
			name := moduleName(words[1])
			m.softPre[name] = append(m.softPre[name], moduleName(word))
		}
	}
	return nil
}

// addAlias takes "alias ALIAS NAME". Aliases with wildcards stand for devices.
func (m *Modules) addAlias(line string) error {
	words := strings.Fields(line)
	if len(words) != 3 || words[0] != "alias" || strings.ContainsAny(words[1], "*?[") {
		return nil
	}
	alias := moduleName(words[1])
	m.provided[alias] = append(m.provided[alias], moduleName(words[2]))
	return nil
}

// addBuiltinAliases takes a piece of "NAME.KEY=VALUE" parts ended by NUL: what the
// modules in the kernel itself go by is built in, too.
func (m *Modules) addBuiltinAliases(line string) error {
	for part := range strings.SplitSeq(line, "\x00") {
		if key, alias, ok := strings.Cut(part, "="); ok && strings.HasSuffix(key, ".alias") {
			m.builtin[moduleName(alias)] = true
		}
	}
	return nil
}

// Resolve returns the modules wanted and all they depend on, each once, in an order
// in which they can be loaded. What is built into the kernel is left out; what is not
// there is an error that names it.
func (m *Modules) Resolve(names []string) ([]Module, error) {
	r := resolution{m: m, state: map[string]resolveState{}}
	for _, name := range names {
		if err := r.add(moduleName(name)); err != nil {
			return nil, err
		}
	}
	return r.order, nil
}

// resolution is a depth-first walk over the dependencies.
type resolution struct {
	m     *Modules
	state map[string]resolveState
	order []Module
}

type resolveState int

const (
	_         resolveState = iota
	resolving              // on the way down: met again, there is a cycle
	resolved
)

func (r *resolution) add(name string) error {
	switch {
	case r.state[name] == resolved || r.m.builtin[name]:
		return nil
	case r.state[name] == resolving:
		return fmt.Errorf("module %s depends on itself in %s", name, filepath.Join(r.m.dir, "modules.dep"))
	}
	file, ok := r.m.files[name]
	if !ok {
		return fmt.Errorf("kernel has no module %s in %s: %s", name, r.m.dir, Mend)
	}
	r.state[name] = resolving
	for _, before := range r.m.softDependencies(name) {
		if err := r.add(before); err != nil {
			return err
		}
	}
	// depmod lists the nearest dependency first: the last one loads first.
	for i := len(r.m.depends[name]) - 1; i >= 0; i-- {
		if err := r.add(r.m.depends[name][i]); err != nil {
			return fmt.Errorf("for module %s: %w", name, err)
		}
	}
	r.state[name] = resolved
	r.order = append(r.order, Module{Name: name, Path: filepath.Join(r.m.dir, file)})
	return nil
}

// softDependencies lists the modules that should be loaded before name and exist.
func (m *Modules) softDependencies(name string) []string {
	var names []string
	for _, before := range m.softPre[name] {
		if _, ok := m.files[before]; ok {
			names = append(names, before)
		} else if !m.builtin[before] {
			names = append(names, m.provided[before]...)
		}
	}
	return names
}

var moduleSuffix = regexp.MustCompile(`\.ko(\.(xz|zst|gz|lz4))?$`)

// moduleName turns a file or a name as a user writes it into the kernel's name.
func moduleName(file string) string {
	return strings.ReplaceAll(moduleSuffix.ReplaceAllString(path.Base(strings.TrimSpace(file)), ""), "-", "_")
}

// readLines calls add for every line of a file that is not empty.
func readLines(name string, add func(string) error) error {
	f, err := os.Open(name)
	if err != nil {
		return err // names the file
	}
	defer f.Close()
	if err := scanLines(f, add); err != nil {
		return fmt.Errorf("reading %s: %w", name, err)
	}
	return nil
}

func scanLines(r io.Reader, add func(string) error) error {
	lines := bufio.NewScanner(io.LimitReader(r, maxIndex))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if lines.Text() == "" {
			continue
		}
		if err := add(lines.Text()); err != nil {
			return err
		}
	}
	return lines.Err()
}
