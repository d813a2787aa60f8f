// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// containerdConfig leaves out what needs a network or a kubelet. Its arguments: the folder, three times.
const containerdConfig = `version = 2
root = %q
state = %q
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = %q
`

func containerdSocket(dir string) string { return filepath.Join(dir, "containerd.sock") }

// serveContainerd starts one with all its state in dir and waits until it answers.
func serveContainerd(ctx context.Context, dir string) (end func(), err error) {
	config := filepath.Join(dir, "containerd.toml")
	text := fmt.Sprintf(containerdConfig, filepath.Join(dir, "root"), filepath.Join(dir, "state"), containerdSocket(dir))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	c := exec.CommandContext(ctx, "containerd", "--config", config)
	if err := c.Start(); err != nil {
		return nil, err
	}
	end = func() {
		_ = c.Process.Signal(unix.SIGTERM)
		_ = c.Wait()
	}
	// ctr itself waits for a socket, but not for one whose file is not there yet.
	waiting, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		_, err := output(exec.CommandContext(waiting, "ctr", "--address", containerdSocket(dir), "version"))
		if err == nil {
			return end, nil
		}
		if waiting.Err() != nil {
			end()
			return nil, fmt.Errorf("waiting for containerd: %w", err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
