// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/micropod/micropod/internal/guest/kernel"
)

// rawClone is the bare engine with a guest that was saved: memory in a file, mapped copy-on-write, and
// the devices' state beside it. The guest writes a byte each millisecond.
type rawClone struct {
	raw    *rawBoot
	memory string
	state  string
	n      atomic.Int64
}

const (
	rawMemory  = 512 << 20
	rawSettled = 500 // bytes that the guest writes before it is saved: some two seconds
)

// newRawClone boots the guest and saves it, the way that QEMU's own documentation shows: x-ignore-shared, stop, migrate.
func newRawClone(ctx context.Context, raw *rawBoot) (*rawClone, error) {
	shm, err := os.MkdirTemp("/dev/shm", "micropod-bench-")
	if err != nil {
		return nil, err
	}
	c := &rawClone{raw: raw, memory: filepath.Join(shm, "memory"), state: filepath.Join(raw.setup.dir, "raw.state")}
	q, err := c.spawn(ctx, "on")
	if err != nil {
		return nil, err
	}
	defer q.end()
	// What the guest's kernel puts off at boot would be done anew after each restore, for half a second.
	for range rawSettled {
		if err := q.first('.'); err != nil {
			return nil, err
		}
	}
	for _, command := range []string{
		`{"execute":"migrate-set-capabilities","arguments":{"capabilities":[{"capability":"x-ignore-shared","state":true}]}}`,
		`{"execute":"stop"}`,
		`{"execute":"migrate","arguments":{"uri":"exec:cat > ` + c.state + `"}}`,
	} {
		if err := q.qmp(command); err != nil {
			return nil, err
		}
	}
	return c, q.migrated()
}

func (c *rawClone) close() { _ = os.RemoveAll(filepath.Dir(c.memory)) }

// restore is the time from spawn to the guest's first byte. The engine is ended after.
func (c *rawClone) restore(ctx context.Context) (time.Duration, error) {
	began := time.Now()
	q, err := c.spawn(ctx, "off", "-incoming", "defer")
	if err != nil {
		return 0, err
	}
	defer q.end()
	for _, command := range []string{
		`{"execute":"migrate-set-capabilities","arguments":{"capabilities":[{"capability":"x-ignore-shared","state":true}]}}`,
		`{"execute":"migrate-incoming","arguments":{"uri":"exec:cat ` + c.state + `"}}`,
	} {
		if err := q.qmp(command); err != nil {
			return 0, err
		}
	}
	if err := q.migrated(); err != nil {
		return 0, err
	}
	if err := q.qmp(`{"execute":"cont"}`); err != nil {
		return 0, err
	}
	err = q.first('.')
	return time.Since(began), err
}

// rawQEMU is one process of the bare engine.
type rawQEMU struct {
	command *exec.Cmd
	console *bufio.Reader
	conn    net.Conn
	answers *bufio.Reader
}

func (c *rawClone) spawn(ctx context.Context, share string, more ...string) (*rawQEMU, error) {
	line := kernel.CommandLine(kernel.Boot{TSCKHz: c.raw.setup.tscKHz, VCPUs: 1, Emulated: true, Console: "ttyS0", Reboot: "t"}) + " rawtick"
	socket := filepath.Join(c.raw.setup.dir, fmt.Sprintf("raw%d.sock", c.n.Add(1)))
	l, err := net.Listen("unix", socket)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	args := append([]string{"-M", "microvm,acpi=on,rtc=on,memory-backend=memory", "-accel", "tcg,thread=multi", "-m", "512",
		"-object", fmt.Sprintf("memory-backend-file,id=memory,mem-path=%s,size=%d,share=%s", c.memory, rawMemory, share),
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio", "-qmp", "unix:" + socket,
		"-kernel", c.raw.setup.vmlinux, "-initrd", c.raw.initrd, "-append", line}, more...)
	q := &rawQEMU{command: exec.CommandContext(ctx, "qemu-system-x86_64", args...)}
	out, err := q.command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := q.command.Start(); err != nil {
		return nil, err
	}
	q.console = bufio.NewReader(out)
	if q.conn, err = l.Accept(); err != nil {
		return nil, err
	}
	q.answers = bufio.NewReader(q.conn)
	return q, q.qmp(`{"execute":"qmp_capabilities"}`)
}

// qmp runs a command and waits for its answer.
func (q *rawQEMU) qmp(command string) error {
	if _, err := fmt.Fprintln(q.conn, command); err != nil {
		return err
	}
	_, err := q.answer()
	return err
}

func (q *rawQEMU) answer() (json.RawMessage, error) {
	for {
		line, err := q.answers.ReadBytes('\n')
		if err != nil {
			return nil, err
		}
		var m struct {
			Return json.RawMessage
			Error  *struct{ Desc string }
		}
		if err := json.Unmarshal(line, &m); err != nil {
			return nil, err
		}
		if m.Error != nil {
			return nil, errors.New(m.Error.Desc)
		}
		if m.Return != nil {
			return m.Return, nil
		}
	}
}

// migrated waits for the end of a save or a load.
func (q *rawQEMU) migrated() error {
	for {
		if _, err := fmt.Fprintln(q.conn, `{"execute":"query-migrate"}`); err != nil {
			return err
		}
		answer, err := q.answer()
		if err != nil {
			return err
		}
		if strings.Contains(string(answer), `"completed"`) {
			return nil
		}
		if strings.Contains(string(answer), `"failed"`) {
			return fmt.Errorf("the bare engine's migration: %s", answer)
		}
		time.Sleep(time.Millisecond / 2)
	}
}

// first waits for the console's next byte of this kind.
func (q *rawQEMU) first(want byte) error {
	_, err := q.console.ReadBytes(want)
	return err
}

func (q *rawQEMU) end() {
	_ = q.conn.Close()
	_ = q.command.Process.Kill()
	_ = q.command.Wait()
}
