// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// dockerFlags are all flags that Docker documents for the verbs that micropod has too
// (docs.docker.com/reference/cli/docker, of its version 28).
var dockerFlags = map[string]string{
	"run": `add-host annotation attach blkio-weight blkio-weight-device cap-add cap-drop cgroup-parent cgroupns cidfile cpu-count cpu-percent
		cpu-period cpu-quota cpu-rt-period cpu-rt-runtime cpu-shares cpus cpuset-cpus cpuset-mems detach detach-keys device device-cgroup-rule
		device-read-bps device-read-iops device-write-bps device-write-iops disable-content-trust dns dns-opt dns-option dns-search domainname entrypoint
		env env-file expose gpus group-add health-cmd health-interval health-retries health-start-interval health-start-period health-timeout
		help hostname init interactive io-maxbandwidth io-maxiops ip ip6 ipc isolation kernel-memory label label-file link link-local-ip
		log-driver log-opt mac-address memory memory-reservation memory-swap memory-swappiness mount name net net-alias network network-alias
		no-healthcheck oom-kill-disable oom-score-adj pid pids-limit platform privileged publish publish-all pull quiet read-only restart rm
		runtime security-opt shm-size sig-proxy stop-signal stop-timeout storage-opt sysctl tmpfs tty ulimit use-api-socket user userns uts volume
		volume-driver volumes-from workdir`,
	"exec":          "detach detach-keys env env-file interactive privileged tty user workdir",
	"attach":        "detach-keys no-stdin sig-proxy",
	"ps":            "all filter format last latest no-trunc quiet size",
	"logs":          "details follow since tail timestamps until",
	"cp":            "archive follow-link quiet",
	"inspect":       "format size type",
	"events":        "filter format since until",
	"stats":         "all format no-stream no-trunc",
	"top":           "",
	"diff":          "",
	"export":        "output",
	"rename":        "",
	"wait":          "",
	"kill":          "signal",
	"stop":          "signal time timeout",
	"restart":       "signal time timeout",
	"rm":            "force link volumes",
	"start":         "attach checkpoint checkpoint-dir detach-keys interactive",
	"update":        "blkio-weight cpu-period cpu-quota cpu-rt-period cpu-rt-runtime cpu-shares cpus cpuset-cpus cpuset-mems memory memory-reservation memory-swap pids-limit restart",
	"system df":     "format verbose",
	"system prune":  "all filter force volumes",
	"system info":   "format",
	"system events": "filter format since until",
	"version":       "format",
}

// TestDockerFlags: every flag of docker's is taken, or refused with its reason.
func TestDockerFlags(t *testing.T) {
	t.Parallel()
	root := wholeRoot()
	for verb, flags := range dockerFlags {
		c, rest, err := root.Find(strings.Fields(verb))
		if err != nil || len(rest) > 0 {
			t.Errorf("there is no verb %q: %v", verb, err)
			continue
		}
		for name := range strings.FieldsSeq(flags) {
			if c.Flags().Lookup(name) == nil {
				t.Errorf("%s has no --%s", verb, name)
			}
		}
	}
}

const dockerPath = "../../docs/docker.md"

// TestDockerDocs keeps the refused flags of docs/docker.md as the commands refuse them: go test ./internal/cli -run TestDockerDocs -update
func TestDockerDocs(t *testing.T) {
	t.Parallel()
	have, err := os.ReadFile(dockerPath)
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "<!-- refused -->\n", "<!-- /refused -->"
	head, rest, ok := strings.Cut(string(have), begin)
	_, tail, closed := strings.Cut(rest, end)
	if !ok || !closed {
		t.Fatalf("docs/docker.md has no place for the refused flags")
	}
	want := head + begin + refusedTable(wholeRoot()) + end + tail
	if *update {
		if err := os.WriteFile(dockerPath, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if string(have) != want {
		t.Error("docs/docker.md does not list what is refused: run go test ./internal/cli -run TestDockerDocs -update")
	}
}

// refusedTable lists each refused flag once, with the verbs that refuse it.
func refusedTable(root *cobra.Command) string {
	verbs := map[[2]string][]string{} // by flag and reason
	for verb, flags := range dockerFlags {
		c, _, err := root.Find(strings.Fields(verb))
		if err != nil {
			continue
		}
		for name := range strings.FieldsSeq(flags) {
			if f := c.Flags().Lookup(name); f != nil {
				if r, refused := f.Value.(*refusedFlag); refused {
					verbs[[2]string{name, r.why}] = append(verbs[[2]string{name, r.why}], verb)
				}
			}
		}
	}
	var lines []string
	for key, list := range verbs {
		slices.Sort(list)
		lines = append(lines, fmt.Sprintf("| `--%s` | %s | %s |\n", key[0], strings.Join(list, ", "), key[1]))
	}
	slices.Sort(lines)
	return "| flag | of | why not |\n|---|---|---|\n" + strings.Join(lines, "")
}
