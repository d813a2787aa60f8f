// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// dockerLine is a command line of testdata/docker.txt and what Docker documents of its output.
type dockerLine struct {
	number  int // in the file
	command string
	want    []string
	code    int
}

func dockerLines(t *testing.T) []dockerLine {
	t.Helper()
	text, err := os.ReadFile("testdata/docker.txt")
	if err != nil {
		t.Fatal(err)
	}
	var lines []dockerLine
	blank := 0 // empty lines that may be a part of the output
	for i, line := range strings.Split(strings.TrimRight(string(text), "\n"), "\n") {
		switch command, ok := strings.CutPrefix(line, "$ "); {
		case ok:
			lines, blank = append(lines, dockerLine{number: i + 1, command: command}), 0
		case strings.HasPrefix(line, "# "):
		case line == "":
			blank++
		default:
			last := &lines[len(lines)-1]
			if n, _ := fmt.Sscanf(line, "[%d]", &last.code); n == 1 {
				continue
			}
			for ; blank > 0; blank-- {
				last.want = append(last.want, "")
			}
			last.want = append(last.want, line)
		}
	}
	return lines
}

// pattern makes an expected output into what it matches.
func (l dockerLine) pattern() *regexp.Regexp {
	var b strings.Builder
	b.WriteString(`^`)
	for _, line := range l.want {
		if line == "..." {
			b.WriteString(`(?:.*\n)*`)
			continue
		}
		quoted := regexp.QuoteMeta(line)
		quoted = regexp.MustCompile(` {2,}`).ReplaceAllString(quoted, ` +`) // columns are as wide as their content
		quoted = strings.NewReplacer("<id64>", `[0-9a-f]{64}`, "<id>", `[0-9a-f]{12}`, `<\*>`, `.*`).Replace(quoted)
		b.WriteString(quoted + ` *\n`)
	}
	return regexp.MustCompile(b.String() + `$`)
}

// uncovered is what a container's init says that was built with coverage counters.
const uncovered = "warning: GOCOVERDIR not set, no coverage data emitted\n"

// TestDockerCommandLines runs what Docker's users type, unchanged but for the alias, on one host of its own.
func TestDockerCommandLines(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	work := t.TempDir()
	lines := dockerLines(t)
	docker := 0
	for _, l := range lines {
		if strings.Contains(l.command, "docker ") {
			docker++
		}
		cmd := exec.CommandContext(testContext(t), "bash", "-c", "shopt -s expand_aliases\nalias docker=micropod\n"+l.command)
		cmd.Dir = work
		cmd.Env = append(h.env(), "PATH="+binDir(t)+":"+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		code := cmd.ProcessState.ExitCode()
		if err != nil && code < 0 {
			t.Fatalf("line %d: %s: %v", l.number, l.command, err)
		}
		out = bytes.ReplaceAll(out, []byte(uncovered), nil)
		if code != l.code || !l.pattern().Match(out) {
			t.Errorf("testdata/docker.txt:%d: %s\nexit code %d, want %d; output:\n%s\nwant:\n%s", l.number, l.command, code, l.code, out, strings.Join(l.want, "\n"))
		}
	}
	if docker < 60 {
		t.Errorf("%d command lines are tried, want at least 60", docker)
	}
}

// binDir is the folder of the programs that are tested.
func binDir(t *testing.T) string {
	t.Helper()
	path, err := binary("micropod")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(path, "/micropod")
}
