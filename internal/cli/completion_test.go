// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

// TestBashCompletion loads the script that users load into a real bash and presses Tab by asking bash's own
// completion function, with a daemon that knows names.
func TestBashCompletion(t *testing.T) {
	t.Parallel()
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("bash is not installed")
	}
	run, err := os.MkdirTemp("", "mp")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(run) })
	d := newFakeDaemon(run)
	if err := d.listen(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.end)
	for _, name := range []string{"web-front", "web-back", "db"} {
		d.add(&v1.ContainerConfig{Name: name, Image: "busybox"})
	}
	bin := filepath.Dir(ourselves(t, run))
	for _, c := range []struct{ line, want string }{
		{"micropod st", "start stats stop"},
		{"micropod rm w", "web-back web-front"},
		{"micropod inspect d", "db"},
		{"micropod cp web-f", "web-front:"},
		{"micropod run --rm busy", "busybox:latest"},
		{"micropod run --det", "--detach --detach-keys"},
		{"micropod container pr", "prune"},
		{"micropod ps --format ", "json table"},
		{"micropod stop w", ""}, // none runs
	} {
		cmd := exec.Command(bash, "--norc", "-c", bashTab, "bash", c.line)
		cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "MICROPOD_RUN_DIR="+run, "MICROPOD_DATA_DIR="+run, "MICROPOD_CONFIG=")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", c.line, err, out)
		}
		if got := strings.Join(strings.Fields(string(out)), " "); got != c.want {
			t.Errorf("%q and Tab offers %q, want %q", c.line, got, c.want)
		}
	}
}

// ourselves makes a micropod in a folder: the test binary is it when it is called so (see TestMain).
func ourselves(t *testing.T, in string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	micropod := filepath.Join(in, "micropod")
	if err := os.Symlink(self, micropod); err != nil {
		t.Fatal(err)
	}
	return micropod
}

// bashTab does what bash does when Tab is pressed at the end of $1. What bash-completion brings is
// stood in for by its two functions that the script calls.
const bashTab = `
_init_completion() { words=("${COMP_WORDS[@]}"); cword=$COMP_CWORD; cur=${COMP_WORDS[COMP_CWORD]}; prev=${COMP_WORDS[COMP_CWORD-1]}; }
__ltrim_colon_completions() { :; }
compopt() { :; }
source <(micropod completion bash) || exit 1
COMP_LINE=$1 COMP_POINT=${#1} COMP_TYPE=9
read -ra COMP_WORDS <<<"$1"
[[ $1 == *" " ]] && COMP_WORDS+=("")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
function=$(complete -p micropod | sed 's/.*-F \([^ ]*\).*/\1/')
"$function" micropod "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
printf '%s\n' "${COMPREPLY[@]}" | sed 's/  *(.*//' | sort
`

// TestOtherShells asks for what the scripts of zsh and fish load, which they take from the same hidden command.
func TestOtherShells(t *testing.T) {
	t.Parallel()
	micropod := ourselves(t, t.TempDir())
	for shell, word := range map[string]string{"zsh": "#compdef micropod", "fish": "complete -c micropod", "powershell": "Register-ArgumentCompleter"} {
		script, err := exec.Command(micropod, "completion", shell).Output()
		if err != nil || !strings.Contains(string(script), word) {
			t.Errorf("completion %s: %v; has no %q", shell, err, word)
		}
		path, err := exec.LookPath(shell)
		if err != nil {
			continue // judged where it is installed
		}
		cmd := exec.Command(path, "-n") // reads without running
		cmd.Stdin = strings.NewReader(string(script))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s does not read its script: %v\n%s", shell, err, out)
		}
	}
}
