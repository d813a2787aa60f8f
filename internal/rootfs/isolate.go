// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
)

const (
	childArgument = "rootfs-convert" // the only argument, by which a child knows itself
	maxMessage    = 64 << 10         // bytes of one line from the child
	maxStderr     = 16 << 10         // bytes kept of what a dying child says
)

// The child's open files beside the standard three.
const (
	fdMessages = 3 + iota
	fdImage
	fdTails
	fdLayers // a socket: handover.go
)

// ErrConverter says that the child process died or spoke nonsense: at fault is a layer
// that broke it, this program, or the system.
var ErrConverter = errors.New("the process that converts layers failed")

// ConvertIsolated is Convert in a child process of this program's own file, which has no
// privileges, no network, no file system and bounded memory and processor time, and ends
// with its parent. A layer that breaks it is an error of this call alone. The program's
// main must have called ChildMain when IsChild.
func ConvertIsolated(ctx context.Context, layers []Layer, out string, limits Limits, progress func(done, total int64)) (Result, error) {
	c, err := openConversion(layers, out)
	if err != nil {
		return Result{}, err
	}
	defer c.close()
	c.limits, c.progress = limits.orDefault(), progress
	result, err := c.runChild(ctx)
	if err != nil {
		return Result{}, fmt.Errorf("converting %d layers: %w", len(layers), err)
	}
	if err := c.output.commit(out); err != nil {
		return Result{}, fmt.Errorf("storing root file system %q: %w", out, err)
	}
	return result, nil
}

// runChild is run in a child.
func (c *conversion) runChild(ctx context.Context) (Result, error) {
	input, err := json.Marshal(request{Sizes: c.sizes, Offsets: c.offsets, DiffIDs: c.diffIDs, Limits: c.limits})
	if err != nil {
		return Result{}, err
	}
	from, to, err := os.Pipe()
	if err != nil {
		return Result{}, err
	}
	defer from.Close()
	defer to.Close()
	ours, childs, err := handoverSockets()
	if err != nil {
		return Result{}, err
	}
	defer ours.Close()
	defer childs.Close()
	run, kill := context.WithCancelCause(ctx)
	defer kill(nil)
	var stderr headBuffer
	cmd := c.command(run, to, childs)
	cmd.Stdin, cmd.Stderr = bytes.NewReader(input), &stderr
	// The child's end follows from that of the thread that started it, which therefore
	// must not be lent to others meanwhile.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		return Result{}, fmt.Errorf("starting the converter: %w", err)
	}
	to.Close()
	childs.Close()
	stopHandover := c.startHandover(run, ours, kill)
	last, readErr := c.listen(from)
	if readErr != nil {
		cmd.Process.Kill() // it speaks nonsense; Wait tells the rest
	}
	waitErr := cmd.Wait()
	stopHandover()
	if ctx.Err() != nil {
		return Result{}, ctx.Err()
	}
	if err := context.Cause(run); err != nil {
		return Result{}, err // of a layer that did not come
	}
	if readErr != nil {
		return Result{}, fmt.Errorf("%w: %w", ErrConverter, readErr)
	}
	return c.judge(last, waitErr, stderr.String())
}

// startHandover hands layers over until stop is called, and calls kill with why one did
// not come.
func (c *conversion) startHandover(ctx context.Context, socket *os.File, kill context.CancelCauseFunc) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := c.handOver(ctx, socket); err != nil && ctx.Err() == nil {
			kill(err)
		}
	}()
	return func() {
		cancel()
		<-ended
	}
}

func (c *conversion) command(ctx context.Context, messages, layers *os.File) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args = []string{"micropod", childArgument}
	cmd.Env = []string{"GOTRACEBACK=single"}
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{messages, c.image, c.tails, layers}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS
	}
	return cmd
}

// listen hears the child out and gives its last message.
func (c *conversion) listen(r io.Reader) (last message, err error) {
	m := newMeter(c.sizes, c.progress)
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxMessage)
	for lines.Scan() {
		last = message{}
		if err := json.Unmarshal(lines.Bytes(), &last); err != nil {
			return message{}, err
		}
		if last.Result == nil && last.Fault == nil && last.Done > m.done && last.Done <= m.total {
			m.add(last.Done - m.done)
		}
	}
	return last, lines.Err()
}

// judge makes an answer of how a child ended.
func (c *conversion) judge(last message, waitErr error, stderr string) (Result, error) {
	if last.Fault != nil {
		return Result{}, last.Fault.unpack(len(c.blobs))
	}
	if waitErr != nil {
		return Result{}, fmt.Errorf("%w: %w: %s", childDeath(waitErr, stderr), waitErr, firstLine(stderr))
	}
	if last.Result == nil {
		return Result{}, fmt.Errorf("%w: it ended without an answer: %s", ErrConverter, firstLine(stderr))
	}
	info, err := c.image.Stat()
	if err != nil {
		return Result{}, err
	}
	return *last.Result, last.Result.check(info.Size())
}

// childDeath tells death by the bounds on memory and time from other deaths.
func childDeath(err error, stderr string) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() && status.Signal() == syscall.SIGXCPU {
			return fmt.Errorf("%w: processor time", ErrLimit)
		}
	}
	for _, sign := range []string{"out of memory", "cannot allocate memory", "failed to allocate"} {
		if strings.Contains(stderr, sign) {
			return fmt.Errorf("%w: memory", ErrLimit)
		}
	}
	return ErrConverter
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}

// headBuffer keeps the first bytes written to it and swallows the rest. It belongs to
// one exec.Cmd. The buffer is not embedded: its ReadFrom would have no bound.
type headBuffer struct{ kept bytes.Buffer }

// Write never fails, so that the child is not stopped by it.
func (b *headBuffer) Write(p []byte) (int, error) {
	b.kept.Write(p[:min(len(p), maxStderr-b.kept.Len())])
	return len(p), nil
}

// String is what was kept.
func (b *headBuffer) String() string { return b.kept.String() }
