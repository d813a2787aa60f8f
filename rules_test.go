// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Package micropod_test holds the repository's own rules: which package may import
// which, what every file starts with, which calls nobody makes. It knows no code of
// the product and tests none.
package micropod_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/micropod/micropod/"

// pkg is what `go list` tells of a package; paths of our own packages are without the module's.
type pkg struct {
	ImportPath string
	Name       string
	Dir        string
	GoFiles    []string
	Imports    []string
	Deps       []string
}

// list runs `go list` over the whole module, files for all build tags that we use included.
func list(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Name,Dir,GoFiles,Imports,Deps", "./...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.Bytes())
	}
	var pkgs []pkg
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		p.ImportPath = strings.TrimPrefix(p.ImportPath, module)
		for _, paths := range [][]string{p.Imports, p.Deps} {
			for i := range paths {
				paths[i] = strings.TrimPrefix(paths[i], module)
			}
		}
		pkgs = append(pkgs, p)
	}
}

// mayImport is the design's direction, by area (a folder of internal/, with all below it):
// what is not listed is forbidden. An area may import itself. The tests of an area, and
// packages that only tests use, are free.
var mayImport = map[string]string{
	// From the outside in: the command line knows the API only, never the daemon.
	"cmd/micropod":       "cli",
	"cmd/micropodd":      "*", // the only place where parts are wired
	"cmd/micropod-agent": "agent",
	// What logs in to registries is the caller's side of images: passwords stay with the caller.
	"cli": "api/micropod image/credentials image/registry config version",
	// It tells the errors of the leaves apart, which come up through the core.
	"server": "template snapshot tracing api/micropod lan network machine container image store events doctor diskuse config version guest/kernel rootfs vmm",
	"cri":    "machine container image store events network version",
	// The core.
	"container": "tracing api/agent machine guest image store events undo diskuse snapshot sparse fault",
	"machine":   "tracing api/agent vmm guest network rootfs store events undo diskuse sealed sparse template snapshot version fault",
	// Leaves never import each other or the core, but for what they are made of.
	"vmm":      "undo sparse tracing",
	"guest":    "api/agent",
	"network":  "undo",
	"lan":      "machine network store events undo",
	"rootfs":   "erofs gunzip sparse",
	"image":    "diskuse",
	"diskuse":  "",
	"erofs":    "",
	"gunzip":   "",
	"share":    "",
	"store":    "",
	"template": "sealed",
	"sealed":   "sparse",
	"snapshot": "sealed diskuse sparse",
	"tracing":  "",
	"events":   "",
	"undo":     "",
	"fault":    "",
	"config":   "",
	"version":  "",
	"sparse":   "",
	// Looks at the host through those who know it.
	"doctor": "vmm guest network config version",
	// The guest's side: small, so that the guest binary is.
	"agent":            "api/agent version",
	"api/agent":        "",
	"api/micropod":     "",
	"test":             "*",
	"scripts/coverage": "",
	"scripts/manpages": "cli",
}

// area names the folder whose rule holds for one of our packages.
func area(path string) string {
	parts := strings.Split(path, "/")
	switch {
	case parts[0] == "internal" && len(parts) > 1:
		return parts[1]
	case parts[0] == "api", parts[0] == "cmd", parts[0] == "scripts":
		return strings.Join(parts[:2], "/")
	}
	return parts[0]
}

func isOurs(path string) bool {
	for _, folder := range []string{"api/", "cmd/", "internal/", "scripts/", "test/"} {
		if strings.HasPrefix(path, folder) {
			return true
		}
	}
	return false
}

// forTests tells packages that only tests import: erofstest, vmmtest and what is below them.
func forTests(path string) bool {
	return slices.ContainsFunc(strings.Split(path, "/"), func(part string) bool {
		return strings.HasSuffix(part, "test") && part != "test"
	})
}

func TestImportDirection(t *testing.T) {
	t.Parallel()
	for _, p := range list(t) {
		if !isOurs(p.ImportPath) || forTests(p.ImportPath) {
			continue
		}
		from := area(p.ImportPath)
		allowed, known := mayImport[from]
		if !known {
			t.Errorf("%s: no rule says what %s may import: add one to mayImport", p.ImportPath, from)
			continue
		}
		for _, imported := range p.Imports {
			to := area(imported)
			if !isOurs(imported) || to == from || allowed == "*" || allows(allowed, to, imported) {
				continue
			}
			t.Errorf("%s imports %s: %s may import nothing but itself and [%s] (docs/design.md, Folders)", p.ImportPath, imported, from, allowed)
		}
	}
}

// allows finds an area, or one package of it, in a rule.
func allows(rule, area, imported string) bool {
	words := strings.Fields(rule)
	return slices.Contains(words, area) || slices.Contains(words, strings.TrimPrefix(imported, "internal/"))
}

// forbiddenDeps are edges that must not exist over any number of steps, with the reason.
var forbiddenDeps = []struct{ from, to, why string }{
	{"cmd/micropod-agent", "net/http", "the guest binary has to stay small"},
	{"cmd/micropod-agent", "connectrpc.com/connect", "the guest binary has to stay small"},
	{"cmd/micropod-agent", "github.com/google/go-containerregistry", "images are the host's matter"},
	{"cmd/micropod-agent", "internal/guest", "the guest's side shares api/agent with the host's, no code"},
	{"cmd/micropod", "internal/server", "the command line talks to the daemon over its API only"},
	{"cmd/micropod", "internal/machine", "the command line talks to the daemon over its API only"},
	{"cmd/micropod", "internal/store", "the command line must work without the daemon's database"},
	{"internal/machine", "internal/vmm/qemu", "nothing above the engine interface names an engine"},
	{"internal/machine", "internal/vmm/firecracker", "nothing above the engine interface names an engine"},
	{"internal/server", "internal/vmm/qemu", "nothing above the engine interface names an engine"},
	{"internal/server", "internal/vmm/firecracker", "nothing above the engine interface names an engine"},
	{"internal/container", "internal/vmm/qemu", "nothing above the engine interface names an engine"},
	{"internal/container", "internal/vmm/firecracker", "nothing above the engine interface names an engine"},
}

func TestForbiddenDependencies(t *testing.T) {
	t.Parallel()
	pkgs := list(t)
	for _, edge := range forbiddenDeps {
		for _, p := range pkgs {
			if p.ImportPath != edge.from {
				continue
			}
			for _, dep := range p.Deps {
				if dep == edge.to || strings.HasPrefix(dep, edge.to+"/") {
					t.Errorf("%s depends on %s (go list -deps): %s", edge.from, dep, edge.why)
				}
			}
		}
	}
}

// source is one of our Go files, parsed.
type source struct {
	path string
	text []byte
	file *ast.File
}

func (s source) isTest() bool      { return strings.HasSuffix(s.path, "_test.go") }
func (s source) isGenerated() bool { return ast.IsGenerated(s.file) }
func (s source) lines() int        { return bytes.Count(s.text, []byte("\n")) }

// goFiles parses all Go files of the repository, those of testdata and of other build tags too.
func goFiles(t *testing.T) []source {
	t.Helper()
	var sources []source
	for _, path := range files(t, ".go") {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		sources = append(sources, source{path, text, file})
	}
	return sources
}

// files lists the repository's files with one of these suffixes, without what tools keep in it.
func files(t *testing.T, suffixes ...string) []string {
	t.Helper()
	var paths []string
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && slices.Contains([]string{".git", ".cache", "bin", "coverage"}, path) {
			return fs.SkipDir
		}
		if entry.Type().IsRegular() && slices.ContainsFunc(suffixes, func(s string) bool { return strings.HasSuffix(path, s) }) {
			paths = append(paths, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

func TestLicenceHeaders(t *testing.T) {
	t.Parallel()
	for _, s := range goFiles(t) {
		if s.isGenerated() {
			continue
		}
		if want := "// Copyright The micropod Authors.\n// SPDX-License-Identifier: Apache-2.0\n\n"; !strings.HasPrefix(string(s.text), want) {
			t.Errorf("%s does not start with\n%s", s.path, want)
		}
	}
	for _, path := range files(t, ".proto", ".s", ".sh", ".ci/run", "Makefile") {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		head := text[:min(len(text), 200)]
		if !bytes.Contains(head, []byte("Copyright The micropod Authors.")) || !bytes.Contains(head, []byte("SPDX-License-Identifier: Apache-2.0")) {
			t.Errorf("%s does not name copyright and licence in its first lines", path)
		}
	}
}

func TestOnePackageComment(t *testing.T) {
	t.Parallel()
	comments, written := map[string][]string{}, map[string]bool{}
	for _, s := range goFiles(t) {
		if s.isTest() || s.isGenerated() {
			continue
		}
		dir := filepath.Dir(s.path)
		written[dir] = true
		if s.file.Doc != nil {
			comments[dir] = append(comments[dir], s.path)
		}
	}
	for dir := range written {
		if n := len(comments[dir]); n != 1 {
			t.Errorf("package %s has %d comments %v, want one: what it is for, call order, what is shared, who should not import it", dir, n, comments[dir])
		}
	}
}

// Sizes in lines: beyond them something has an idea too many.
const (
	maxMain = 80
	maxFile = 400
)

func TestSizes(t *testing.T) {
	t.Parallel()
	for _, s := range goFiles(t) {
		if s.isTest() || s.isGenerated() {
			continue
		}
		if strings.HasPrefix(s.path, "cmd/") && filepath.Base(s.path) == "main.go" && s.lines() > maxMain {
			t.Errorf("%s has %d lines, more than %d: a main only starts what others do", s.path, s.lines(), maxMain)
		}
		if s.lines() > maxFile {
			t.Errorf("%s has %d lines, more than %d: one idea per file", s.path, s.lines(), maxFile)
		}
	}
}

func TestModuleFile(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "mod", "edit", "-json").Output()
	if err != nil {
		t.Fatal(err)
	}
	var mod struct{ Replace, Exclude []any }
	if err := json.Unmarshal(out, &mod); err != nil {
		t.Fatal(err)
	}
	if len(mod.Replace)+len(mod.Exclude) > 0 {
		t.Errorf("go.mod has replace %v, exclude %v: `go install` of our programs would not work", mod.Replace, mod.Exclude)
	}
}

// banned are calls (PACKAGE.NAME) and imports (PACKAGE) with what to do instead.
var banned = []struct {
	what    string
	where   func(s source) bool
	instead string
}{
	{"math/rand", inAgent, "ask getrandom: Go's generators are equal in all clones of a machine"},
	{"math/rand/v2", inAgent, "ask getrandom: Go's generators are equal in all clones of a machine"},
	{"crypto/rand", inAgent, "ask getrandom: what a process buffered is equal in all clones of a machine"},
	{"io/ioutil", everywhere, "use io and os"},
	{"context.TODO", everywhere, "take a context from the caller"},
	{"os.Exit", inLibraries, "return an error to main"},
	{"log.Fatal", everywhere, "return an error to main"},
	{"log.Fatalf", everywhere, "return an error to main"},
	{"http.DefaultClient", inProduct, "take a client with limits from the caller"},
	{"http.Get", inProduct, "take a client with limits from the caller"},
}

func everywhere(source) bool { return true }

func inProduct(s source) bool { return !s.isTest() }

func inAgent(s source) bool { return strings.HasPrefix(s.path, "internal/agent/") && !s.isTest() }

// inLibraries excludes the agent, which is a program that becomes others by itself, and
// suites that are a test's main.
func inLibraries(s source) bool {
	return strings.HasPrefix(s.path, "internal/") && !s.isTest() && s.file.Name.Name != "main" && !inAgent(s) &&
		!forTests(filepath.ToSlash(filepath.Dir(s.path)))
}

func TestBannedCalls(t *testing.T) {
	t.Parallel()
	for _, s := range goFiles(t) {
		used := uses(s.file)
		for _, b := range banned {
			if used[b.what] && b.where(s) {
				t.Errorf("%s uses %s: %s", s.path, b.what, b.instead)
			}
		}
	}
}

// uses lists the imports of a file and what it selects from them, by the imports' last elements.
func uses(file *ast.File) map[string]bool {
	used := map[string]bool{}
	for _, spec := range file.Imports {
		path, _ := strconv.Unquote(spec.Path.Value)
		used[path] = true
	}
	ast.Inspect(file, func(n ast.Node) bool {
		if selector, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := selector.X.(*ast.Ident); ok {
				used[x.Name+"."+selector.Sel.Name] = true
			}
		}
		return true
	})
	return used
}

// A test that sleeps hopes that something has happened meanwhile. It waits for the event
// itself (a channel, a pidfd, testing/synctest), or, where there is none, asks again and
// again in a loop with a deadline: only there may it sleep.
func TestNoBlindSleeps(t *testing.T) {
	t.Parallel()
	for _, s := range goFiles(t) {
		if s.isTest() && sleepsOutsideLoops(s.file) {
			t.Errorf("%s calls time.Sleep outside a loop: wait for the event itself", s.path)
		}
	}
}

func sleepsOutsideLoops(file *ast.File) bool {
	found := false
	ast.Inspect(file, func(n ast.Node) bool {
		if _, loop := n.(*ast.ForStmt); loop {
			return false
		}
		if selector, ok := n.(*ast.SelectorExpr); ok && selector.Sel.Name == "Sleep" {
			x, ok := selector.X.(*ast.Ident)
			found = found || ok && x.Name == "time"
		}
		return true
	})
	return found
}

func TestSleepsOutsideLoopsAreFound(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]bool{
		"time.Sleep(1)": true, "go func() { time.Sleep(1) }()": true, "f := time.Sleep; f(1)": true,
		"for !done() { time.Sleep(1) }": false, "for ; ; time.Sleep(1) {}": false, "clock.Sleep(1)": false,
	} {
		file, err := parser.ParseFile(token.NewFileSet(), "x.go", "package x\nfunc f() { "+body+" }", 0)
		if err != nil {
			t.Fatal(err)
		}
		if got := sleepsOutsideLoops(file); got != want {
			t.Errorf("%s: found %v, want %v", body, got, want)
		}
	}
}

// Errors name the step that went wrong; that it failed is what an error says anyway.
func TestErrorsDoNotSayFailedTo(t *testing.T) {
	t.Parallel()
	for _, s := range goFiles(t) {
		if s.isTest() || s.isGenerated() {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) == 0 {
				return true
			}
			selector, ok := call.Fun.(*ast.SelectorExpr)
			literal, isLiteral := call.Args[0].(*ast.BasicLit)
			if ok && isLiteral && slices.Contains([]string{"Errorf", "New"}, selector.Sel.Name) && strings.Contains(literal.Value, "failed to ") {
				t.Errorf("%s: error %s: name the step (\"creating TAP for %%q: %%w\")", s.path, literal.Value)
			}
			return true
		})
	}
}
