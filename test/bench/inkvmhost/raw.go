// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/micropod/micropod/internal/guest"
	"github.com/micropod/micropod/internal/vmm"
)

// meetLimit is many times what a boot takes there.
const meetLimit = 40 * time.Second

// raw is a Firecracker as anyone would start it: no jail, no cgroup, its console dropped.
type raw struct {
	command *exec.Cmd
	dir     string
	client  http.Client
	agent   *net.UnixListener
}

// spawn starts one in a folder of its own and waits for its socket.
func spawn(ctx context.Context) (_ *raw, err error) {
	r := &raw{}
	if r.dir, err = os.MkdirTemp("", "r"); err != nil {
		return nil, err
	}
	if r.agent, err = net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(r.dir, "v.sock_1024"), Net: "unix"}); err != nil {
		return nil, err
	}
	r.command = exec.CommandContext(ctx, "firecracker", "--api-sock", "api.sock")
	r.command.Dir = r.dir
	if err := r.command.Start(); err != nil {
		return nil, err
	}
	socket := filepath.Join(r.dir, "api.sock")
	r.client.Transport = &http.Transport{MaxConnsPerHost: 1, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}
	for {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			return r, conn.Close()
		}
		if ctx.Err() != nil {
			return nil, err
		}
		time.Sleep(time.Millisecond)
	}
}

func (r *raw) end() {
	_ = r.command.Process.Kill()
	_ = r.command.Wait()
	_ = r.agent.Close()
	_ = os.RemoveAll(r.dir)
}

func (r *raw) send(ctx context.Context, method, path string, body any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	q, err := http.NewRequestWithContext(ctx, method, "http://localhost"+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	answer, err := r.client.Do(q)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	fault, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode/100 != 2 {
		err = fmt.Errorf("%s %s: %s: %s", method, path, answer.Status, fault)
	}
	return err
}

type fields = map[string]any

// start makes the requests that the engine makes.
func (r *raw) start(ctx context.Context, c vmm.Config) error {
	for _, q := range []struct {
		path string
		body fields
	}{
		{"/machine-config", fields{"vcpu_count": c.VCPUs, "mem_size_mib": c.Memory >> 20}},
		{"/boot-source", fields{"kernel_image_path": c.Kernel, "initrd_path": c.Initrd,
			"boot_args": "console=ttyS0 reboot=k panic=-1 8250.nr_uarts=1 i8042.noaux i8042.nomux i8042.nopnp i8042.dumbkbd " + c.Args}},
		{"/vsock", fields{"guest_cid": 3, "uds_path": "v.sock"}},
		{"/entropy", fields{}},
		{"/balloon", fields{"amount_mib": 0, "deflate_on_oom": true, "stats_polling_interval_s": 1}},
		{"/actions", fields{"action_type": "InstanceStart"}},
	} {
		if err := r.send(ctx, "PUT", q.path, q.body); err != nil {
			return err
		}
	}
	return nil
}

// meet waits for the agent's connection and its greeting.
func (r *raw) meet(ctx context.Context) error {
	if err := r.agent.SetDeadline(time.Now().Add(meetLimit)); err != nil {
		return err
	}
	conn, err := r.agent.Accept()
	if err != nil {
		return fmt.Errorf("waiting for the raw machine's agent: %w", err)
	}
	return greet(ctx, conn)
}

func greet(ctx context.Context, conn net.Conn) error {
	session, err := guest.Connect(ctx, conn, guest.Options{})
	if err != nil {
		return err
	}
	return session.Close()
}
