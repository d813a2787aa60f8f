// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package guest_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/micropod/micropod/internal/guest/initramfs"
	"github.com/micropod/micropod/internal/guest/kernel"
)

// machine is a real one, booted without an engine: the tests of this package are of the channel and the agent.
type machine struct {
	socket  string
	console string
	exited  chan struct{}
}

// boot starts a machine whose guest is the real agent. drives become /dev/vda and so on.
func boot(t *testing.T, drives ...string) *machine {
	t.Helper()
	if testing.Short() {
		t.Skip("boots a machine")
	}
	qemu, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		t.Skip("QEMU is missing: apt-get install qemu-system-x86")
	}
	k, err := kernel.Find(kernel.Options{})
	if errors.Is(err, kernel.ErrNotFound) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	vmlinux, err := kernel.Vmlinux(t.Context(), k, dir)
	if err != nil {
		t.Fatal(err)
	}
	initrd, err := initramfs.Build(t.Context(), initramfs.Options{Kernel: k, AgentPath: buildAgent(t, dir), CacheDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	khz, err := kernel.TSCKHz()
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{socket: filepath.Join(dir, "guest.sock"), console: filepath.Join(dir, "console"), exited: make(chan struct{})}
	args := []string{"-M", "microvm,acpi=on,rtc=on", "-accel", "tcg,thread=multi", "-cpu", "max,erms=off", "-m", "512",
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "file:" + m.console,
		"-kernel", vmlinux, "-initrd", initrd,
		"-append", kernel.CommandLine(kernel.Boot{TSCKHz: khz, VCPUs: 1, Emulated: true, Console: "ttyS0", Reboot: "t"}),
		"-chardev", "socket,id=guest,server=on,wait=off,path=" + m.socket,
		"-device", "virtio-serial-device", "-device", "virtserialport,chardev=guest,name=micropod"}
	for i, path := range drives {
		args = append(args, "-drive", fmt.Sprintf("if=none,id=d%d,format=raw,file=%s", i, path), "-device", fmt.Sprintf("virtio-blk-device,drive=d%d", i))
	}
	m.start(t, exec.Command(qemu, args...))
	return m
}

func (m *machine) start(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	var words strings.Builder
	cmd.Stdout, cmd.Stderr = &words, &words
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(m.exited)
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-m.exited
		if t.Failed() {
			console, _ := os.ReadFile(m.console)
			t.Logf("QEMU: %s\nconsole:\n%s", words.String(), console)
		}
	})
}

// dial connects to the machine's end of the guest channel, as an engine does.
func (m *machine) dial(t *testing.T) net.Conn {
	t.Helper()
	for {
		conn, err := net.Dial("unix", m.socket)
		if err == nil {
			return conn
		}
		select {
		case <-m.exited:
			t.Fatal("QEMU ended")
		case <-time.After(5 * time.Millisecond): // QEMU makes its socket some time after its start
		}
	}
}

func buildAgent(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "micropod-agent")
	args := []string{"build", "-trimpath", "-o", path}
	if coverTag {
		args = append(args, "-cover", "-covermode=atomic", "-coverpkg=github.com/micropod/micropod/...", "-tags=cover")
	} else {
		args = append(args, "-ldflags=-s -w")
	}
	cmd := exec.Command("go", append(args, "github.com/micropod/micropod/cmd/micropod-agent")...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building the agent: %v\n%s", err, out)
	}
	return path
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}
