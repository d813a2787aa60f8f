// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Command bench measures micropod beside its peers and the bare engine, in one
// run, since absolute times depend on the machine and on what else it does.
//
// It prints a table and writes the same as JSON (-out). It needs root, the
// binaries of "make build", and takes as peers those of podman, containerd, crun, runc and
// umoci that are installed, with folders and mounts of their own. A limit that is not kept is marked; the exit code stays 0 unless
// -strict is given.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/rootfs"
)

func main() {
	if rootfs.IsChild() {
		rootfs.ChildMain()
	}
	out := flag.String("out", "", "`file` for the results as JSON")
	runs := flag.Int("n", 10, "`runs` of each command")
	bin := flag.String("bin", "bin", "`folder` of micropod's binaries")
	only := flag.String("only", "", "measure this `group` alone: boot, start, agent, exec, streams, memory, peers, images, net, daemon, firecracker")
	long := flag.Bool("long", false, "measure also what takes minutes: images of 3 GB")
	strict := flag.Bool("strict", false, "fail when a limit is not kept")
	flag.Parse()
	if err := isolate(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	missed, err := bench(ctx, options{bin: *bin, runs: *runs, only: *only, out: *out, long: *long})
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	if missed > 0 && *strict {
		os.Exit(2)
	}
}

type options struct {
	bin, only, out string
	runs           int
	long           bool
}

// bench measures everything and returns how many limits were not kept.
func bench(ctx context.Context, o options) (missed int, err error) {
	s, err := newSetup(ctx, o)
	if err != nil {
		return 0, err
	}
	defer s.close()
	results := newReport()
	for _, group := range []struct {
		name    string
		measure func(context.Context, *setup, *report) error
	}{
		{"boot", measureBoot}, {"start", measureStart}, {"agent", measureAgent}, {"exec", measureExec},
		{"streams", measureStreams}, {"memory", measureMemory}, {"peers", measurePeers},
		{"images", measureImages}, {"daemon", measureDaemon}, {"net", measureNet}, {"firecracker", measureFirecracker},
	} {
		if o.only != "" && o.only != group.name {
			continue
		}
		fmt.Fprintf(os.Stderr, "measuring %s ...\n", group.name)
		if err := group.measure(ctx, s, results); err != nil {
			return 0, fmt.Errorf("measuring %s: %w", group.name, err)
		}
	}
	results.print(os.Stdout)
	if o.out != "" {
		data, err := json.MarshalIndent(results, "", "  ")
		if err != nil {
			return 0, err
		}
		if err := os.WriteFile(o.out, append(data, '\n'), 0o644); err != nil {
			return 0, fmt.Errorf("writing the results: %w", err)
		}
	}
	return results.missed(), nil
}
