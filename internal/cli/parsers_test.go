// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// isUsage: what users mistype must be told as such, with a hint.
func isUsage(err error) bool {
	var u *usageError
	return errors.As(err, &u) && u.hint != ""
}

func TestParseSize(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]int64{
		"": 0, "0": 0, "1024": 1024, "512k": 512 << 10, "64m": 64 << 20, "64MB": 64 << 20, "2g": 2 << 30, "1.5g": 3 << 29, "2GiB": 2 << 30,
	} {
		if got, err := parseSize("--memory", in); got != want || err != nil {
			t.Errorf("parseSize(%q) = %d, %v; want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"-1", "m", "1x", "1 2", "0x10", "NaN", "1e400g"} {
		if got, err := parseSize("--memory", in); !isUsage(err) {
			t.Errorf("parseSize(%q) = %d, %v; want a usage error", in, got, err)
		}
	}
}

func TestParseCPUs(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]int64{"": 0, "1": 1e9, "0.5": 5e8, "1.25": 125e7, "1024": 1024e9} {
		if got, err := parseCPUs(in); got != want || err != nil {
			t.Errorf("parseCPUs(%q) = %d, %v; want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"0", "-1", "NaN", "Inf", "1025", "two"} {
		if got, err := parseCPUs(in); !isUsage(err) {
			t.Errorf("parseCPUs(%q) = %d, %v; want a usage error", in, got, err)
		}
	}
}

func TestParseDetachKeys(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"ctrl-p,ctrl-q": "\x10\x11", "a": "a", "ctrl-a,x": "\x01x", "CTRL-Z": "\x1a", "ctrl-@": "\x00", "ctrl-[": "\x1b", "ctrl-_": "\x1f",
		"ctrl-\\, ctrl-]": "\x1c\x1d", "ctrl-^": "\x1e",
	} {
		if got, err := parseDetachKeys(in); string(got) != want || err != nil {
			t.Errorf("parseDetachKeys(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"", "ctrl-", "ctrl-1", "ab", "a,", "ctrl-pp", "shift-a", "ctrl-é"} {
		if got, err := parseDetachKeys(in); !isUsage(err) {
			t.Errorf("parseDetachKeys(%q) = %q, %v; want a usage error", in, got, err)
		}
	}
}

func TestParseTime(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)
	for in, want := range map[string]time.Time{
		"10m": now.Add(-10 * time.Minute), "0s": now, "1767225600": time.Unix(1767225600, 0), "1767225600.5": time.Unix(1767225600, 5e8),
		"2026-01-02T15:04:05Z": time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC), "2026-01-02T15:04:05.25+02:00": time.Date(2026, 1, 2, 13, 4, 5, 25e7, time.UTC),
		"2026-01-02T15:04:05": time.Date(2026, 1, 2, 15, 4, 5, 0, time.Local), "2026-01-02": time.Date(2026, 1, 2, 0, 0, 0, 0, time.Local),
		"2026-01-02T15:04": time.Date(2026, 1, 2, 15, 4, 0, 0, time.Local),
	} {
		if got, err := parseTime("--since", in, now); err != nil || !got.AsTime().Equal(want) {
			t.Errorf("parseTime(%q) = %v, %v; want %v", in, got.AsTime(), err, want)
		}
	}
	if got, err := parseTime("--since", "", now); got != nil || err != nil {
		t.Errorf("an empty time is %v, %v; want none", got, err)
	}
	for _, in := range []string{"yesterday", "-5", "1e300", "NaN", "2026-13-01"} {
		if got, err := parseTime("--since", in, now); !isUsage(err) {
			t.Errorf("parseTime(%q) = %v, %v; want a usage error", in, got, err)
		}
	}
}

func TestSplitTag(t *testing.T) {
	t.Parallel()
	for in, want := range map[string][2]string{
		"a": {"a", "<none>"}, "a:1": {"a", "1"}, "host:5000/a": {"host:5000/a", "<none>"}, "host:5000/a:1": {"host:5000/a", "1"},
		"a@sha256:00": {"a", "<none>"}, "a:1@sha256:00": {"a", "1"},
	} {
		if repository, tag := splitTag(in); repository != want[0] || tag != want[1] {
			t.Errorf("splitTag(%q) = %q, %q; want %q", in, repository, tag, want)
		}
	}
}

func TestEnvironmentFiles(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "env")
	text := "\uFEFFA=1\r\n# no\n\n  B=x=y \nPATH\nMICROPOD_TEST_UNSET\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := environment([]string{path}, []string{"A=2", "C="})
	if want := []string{"A=1", "B=x=y ", "PATH=" + os.Getenv("PATH"), "A=2", "C="}; err != nil || !slices.Equal(got, want) {
		t.Errorf("environment is %q, %v; want %q", got, err, want)
	}
	if err := os.Truncate(path, maxEnvFile+1); err != nil {
		t.Fatal(err)
	}
	if _, err := environment([]string{path}, nil); err == nil || !strings.Contains(err.Error(), "larger than 1MiB") {
		t.Errorf("a file beyond the limit gave %v", err)
	}
}

func TestTemplates(t *testing.T) {
	t.Parallel()
	type thing struct {
		Name string
		List []string
	}
	rows := []thing{{"web", []string{"a", "b"}}}
	for in, want := range map[string]string{
		"{{.Name}}": "web\n", `{{.Name}}\t{{join .List "+"}}`: "web\ta+b\n", "{{upper .Name}}{{lower .Name}}{{title .Name}}{{title \"\"}}": "WEBwebWeb\n",
		"{{truncate .Name 2}}{{truncate .Name -1}}": "weweb\n", "{{pad .Name 1 2}}|": " web  |\n", `{{json .}}`: `{"Name":"web","List":["a","b"]}` + "\n",
		`{{index (split "x,y" ",") 1}}`: "y\n", "{{json \"<&>\"}}": "\"<&>\"\n",
	} {
		var b bytes.Buffer
		if err := printTemplate(&b, in, rows); err != nil || b.String() != want {
			t.Errorf("%s prints %q, %v; want %q", in, b.String(), err, want)
		}
	}
	for _, in := range []string{"{{", "{{.Nosuch}}", "{{nosuch .}}", "{{index .List 9}}", "{{json}}"} {
		if err := printTemplate(&bytes.Buffer{}, in, rows); !isUsage(err) {
			t.Errorf("%s gave %v, want a usage error", in, err)
		}
	}
	var b bytes.Buffer
	if err := printTemplateTable(&b, []column{{"THE NAME", "{{.Name}}"}}, `{{.Name}}\t{{.List}}`, rows); err != nil || b.String() != "THE NAME   LIST\nweb        [a b]\n" {
		t.Errorf("the table is %q, %v", b.String(), err)
	}
}

func TestPrintable(t *testing.T) {
	t.Parallel()
	if got := printable("a\x1b[31m\tß\x00\x9b\n"); got != "a\uFFFD[31m\tß\uFFFD\uFFFD\uFFFD" {
		t.Errorf("printable leaves %q", got)
	}
}

func FuzzParseSize(f *testing.F) {
	f.Add("512m")
	f.Add("1.5gib")
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := parseSize("--memory", s); n < 0 || err != nil && n != 0 {
			t.Errorf("parseSize(%q) = %d, %v", s, n, err)
		}
	})
}

func FuzzParseDetachKeys(f *testing.F) {
	f.Add("ctrl-p,ctrl-q")
	f.Add("a,ctrl-@")
	f.Fuzz(func(t *testing.T, s string) {
		keys, err := parseDetachKeys(s)
		if (err == nil) != (len(keys) > 0) || err == nil && len(keys) != strings.Count(s, ",")+1 && !strings.Contains(s, ",") {
			t.Errorf("parseDetachKeys(%q) = %q, %v", s, keys, err)
		}
	})
}

func FuzzParseTime(f *testing.F) {
	f.Add("10m")
	f.Add("2026-01-02T15:04:05Z")
	f.Add("1767225600.25")
	f.Fuzz(func(t *testing.T, s string) {
		if at, err := parseTime("--since", s, time.Unix(1767225600, 0)); err == nil && s != "" && at == nil {
			t.Errorf("parseTime(%q) is nothing", s)
		}
	})
}

func FuzzTemplate(f *testing.F) {
	f.Add("{{.ID}}")
	f.Add(`table {{.Names}}\t{{upper .State}}`)
	f.Fuzz(func(t *testing.T, s string) {
		if strings.Contains(s, "define") || strings.Contains(s, "template") || strings.Contains(s, "range") || strings.Contains(s, "pad") {
			t.Skip("may not end, as any program")
		}
		_ = printList(&bytes.Buffer{}, &formatFlags{format: s}, containerTable, []containerRow{{ID: "1"}})
	})
}

func FuzzEnvFile(f *testing.F) {
	f.Add("A=1\nB\n#c\n")
	f.Fuzz(func(t *testing.T, s string) {
		path := filepath.Join(t.TempDir(), "env")
		if err := os.WriteFile(path, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
		lines, err := keyValueFiles("--env-file", []string{path})
		for _, l := range lines {
			if name, _, _ := strings.Cut(l, "="); err != nil || name == "" || strings.ContainsAny(name, " \t\n") {
				t.Errorf("%q gave the line %q, %v", s, l, err)
			}
		}
	})
}

func FuzzDetachReader(f *testing.F) {
	f.Add([]byte("abc\x10\x11def"), 3)
	f.Add([]byte("\x10\x10\x11"), 1)
	f.Fuzz(func(t *testing.T, typed []byte, chunk int) {
		keys := []byte("\x10\x11")
		before, _, detaches := bytes.Cut(typed, keys)
		got, err := readTyped(&detachReader{r: &chunked{typed, 1 + (chunk & 7)}, keys: keys})
		if detaches != errors.Is(err, errDetached) {
			t.Fatalf("typing %q ended with %v", typed, err)
		}
		want := before
		if !detaches {
			want = bytes.TrimSuffix(typed, keys[:1]) // what may become the keys is held back
		}
		if !bytes.Equal(got, want) {
			t.Errorf("typing %q passed on %q, want %q", typed, got, want)
		}
	})
}
