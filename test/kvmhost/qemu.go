// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package kvmhost

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/micropod/micropod/internal/guest/kernel"
	"github.com/micropod/micropod/internal/rootfs"
	"github.com/micropod/micropod/test/kvmhost/wire"
)

const (
	memoryMiB   = 3072
	scratchSize = 16 << 30 // bytes of /tmp, sparse
	// bootLimit bounds the way to the first answer; 3 s on a quiet host.
	bootLimit = 90 * time.Second
)

// process is the emulator. The goroutine that started it stays on its thread until it ends: the kernel kills
// it with that thread (PR_SET_PDEATHSIG in prctl(2)), so that no emulator outlives its test.
type process struct {
	dir   string // sockets, scratch disk, console
	pid   int
	ended chan struct{}
	err   error // of the end
}

func (p *process) consoleTail() []byte {
	b, err := os.ReadFile(filepath.Join(p.dir, "console"))
	if err != nil {
		return []byte(err.Error())
	}
	return bytes.TrimSpace(b[max(0, len(b)-4096):])
}

// end kills the emulator and removes its folder.
func (p *process) end() error {
	_ = syscall.Kill(p.pid, syscall.SIGKILL) // its parent waits for it below: the pid is its own
	<-p.ended
	return os.RemoveAll(p.dir)
}

// boot starts the emulator and connects to the port of its init.
func boot(ctx context.Context, b bootFiles) (_ *process, _ net.Conn, err error) {
	ctx, cancel := context.WithTimeout(ctx, bootLimit)
	defer cancel()
	p := &process{ended: make(chan struct{})}
	if p.dir, err = os.MkdirTemp("", "kvmhost-"); err != nil {
		return nil, nil, err
	}
	scratch := filepath.Join(p.dir, "scratch")
	if err := rootfs.CreateScratch(ctx, scratch, scratchSize); err != nil {
		return nil, nil, errors.Join(err, os.RemoveAll(p.dir))
	}
	args, err := p.arguments(b, scratch)
	if err != nil {
		return nil, nil, errors.Join(err, os.RemoveAll(p.dir))
	}
	started := make(chan error)
	go p.run(args, started)
	if err := <-started; err != nil {
		return nil, nil, errors.Join(err, os.RemoveAll(p.dir))
	}
	conn, err := p.connect(ctx)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("%w; its console:\n%s", err, p.consoleTail()), p.end())
	}
	return p, conn, nil
}

// run is the whole life of the emulator.
func (p *process) run(args []string, started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(p.ended)
	cmd := exec.Command("qemu-system-x86_64", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setsid: true}
	var output bytes.Buffer // it warns of what TCG lacks of an EPYC
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		started <- err
		return
	}
	p.pid = cmd.Process.Pid
	started <- nil
	p.err = fmt.Errorf("QEMU ended: %w: %s", cmd.Wait(), bytes.TrimSpace(output.Bytes()))
}

// arguments describe a machine as small as QEMU has them; "-no-reboot" makes its reboot its end.
func (p *process) arguments(b bootFiles, scratch string) ([]string, error) {
	khz, err := kernel.TSCKHz()
	if err != nil {
		return nil, err
	}
	// One: with two, about one guest in ten dies in its first second, and now and then this host with it. What its kernel says then
	// is that it took a page fault with a guest's state in the processor, which TCG of QEMU 7.2 mixed up.
	const cpus = 1
	line := kernel.CommandLine(kernel.Boot{TSCKHz: khz, VCPUs: cpus, Emulated: true, Console: "ttyS0", Reboot: "t"})
	return []string{
		"-M", "microvm,acpi=on,rtc=on,pit=on,pic=on,isa-serial=on,auto-kernel-cmdline=off",
		"-accel", "tcg,thread=multi,tb-size=512",
		"-cpu", "EPYC,+svm,+npt", // TCG emulates AMD's virtualisation, not Intel's
		"-smp", strconv.Itoa(cpus), "-m", strconv.Itoa(memoryMiB),
		"-nodefaults", "-no-user-config", "-nographic", "-no-reboot",
		"-kernel", b.kernel, "-initrd", b.initrd, "-append", line,
		"-chardev", "file,id=console,path=" + filepath.Join(p.dir, "console"), "-serial", "chardev:console",
		"-device", "virtio-serial-device",
		"-chardev", "socket,id=port,server=on,wait=off,path=" + filepath.Join(p.dir, "port"),
		"-device", "virtserialport,chardev=port,name=" + wire.Port,
		"-object", "rng-random,id=rng,filename=/dev/urandom", "-device", "virtio-rng-device,rng=rng",
		// The guest finds the buses from the highest number down: the image, on the later bus, is vda.
		"-drive", "if=none,id=image,format=raw,readonly=on,file=" + b.image, "-device", "virtio-blk-device,drive=image,bus=virtio-mmio-bus.20",
		"-drive", "if=none,id=scratch,format=raw,cache=unsafe,file=" + scratch, "-device", "virtio-blk-device,drive=scratch,bus=virtio-mmio-bus.19",
	}, nil
}

func (p *process) connect(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	for {
		conn, err := d.DialContext(ctx, "unix", filepath.Join(p.dir, "port"))
		if err == nil {
			return conn, nil
		}
		select {
		case <-p.ended:
			return nil, p.err
		case <-ctx.Done():
			return nil, fmt.Errorf("connecting to QEMU: %w", err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}
