// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	v1 "github.com/micropod/micropod/api/micropod/v1"
	"github.com/micropod/micropod/api/micropod/v1/micropodv1connect"
)

const (
	manyMachines  = 50
	manyRecords   = 1000
	followers     = 200
	adoptLimit    = 1000 // ms until all of manyMachines answer
	listLimit     = 20   // ms of the daemon's CPU time for a list with manyMachines
	recordsLimit  = 50   // ms for a list of manyRecords
	firstByte     = 15   // ms from the start of a command to the first byte of its request
	idlePercent   = 1    // of a core
	idleFor       = 20 * time.Second
	startTogether = 4
)

// measureDaemon loads a daemon with machines and records, kills it, and has the next one take them up.
func measureDaemon(ctx context.Context, s *setup, r *report) error {
	if err := measureFirstByte(ctx, s, r); err != nil {
		return err
	}
	ids, err := s.startMany(ctx, manyMachines)
	if err != nil {
		return err
	}
	client := s.client()
	for _, step := range []func() error{
		func() error { return measureIdle(ctx, s, r) },
		func() error { return measureList(ctx, s, r, client) },
		func() error { return measureAdoption(ctx, s, r, client, ids) },
		func() error { return measureFollowers(ctx, s, r, client) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	if _, err := s.micropod(ctx, append([]string{"rm", "-f"}, ids...)...); err != nil {
		return err
	}
	return measureRecords(ctx, r, client)
}

// startMany starts machines, some at once.
func (s *setup) startMany(ctx context.Context, n int) ([]string, error) {
	ids := make([]string, n)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(startTogether)
	for i := range ids {
		group.Go(func() (err error) {
			ids[i], err = s.micropod(ctx, "run", "-d", "-m", "128m", "busybox", "sleep", "1000000")
			return err
		})
	}
	return ids, group.Wait()
}

// client speaks the API without the command line.
func (s *setup) client() micropodv1connect.ContainersClient {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(s.dir, "run", "micropod.sock"))
	}
	return micropodv1connect.NewContainersClient(&http.Client{Transport: &http.Transport{DialContext: dial}}, "http://micropod")
}

// measureFirstByte has commands speak to a socket of our own.
func measureFirstByte(ctx context.Context, s *setup, r *report) error {
	path := filepath.Join(s.dir, "first.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	defer l.Close()
	samples, err := times(ctx, s.runs, func(ctx context.Context) error {
		c := exec.CommandContext(ctx, filepath.Join(s.bin, "micropod"), "ps")
		c.Env = append(os.Environ(), "MICROPOD_HOST=unix://"+path)
		if err := c.Start(); err != nil {
			return err
		}
		defer func() { // what it says about this is not measured
			go func() {
				_ = c.Process.Kill()
				_ = c.Wait()
			}()
		}()
		for {
			conn, err := l.Accept()
			if err != nil {
				return err
			}
			n, _ := conn.Read(make([]byte, 1))
			_ = conn.Close()
			if n == 1 { // a connection without a byte only asks whether anybody listens
				return nil
			}
		}
	})
	if err != nil {
		return err
	}
	r.add("CLI, start to first byte", "ms", samples, firstByte, "micropod ps")
	return nil
}

func measureIdle(ctx context.Context, s *setup, r *report) error {
	began, before := time.Now(), cpuTime(s.daemonPID())
	select {
	case <-time.After(idleFor):
	case <-ctx.Done():
		return ctx.Err()
	}
	used := cpuTime(s.daemonPID()) - before
	r.add(fmt.Sprintf("daemon idle, %d machines", manyMachines), "% of a core", []float64{100 * used.Seconds() / time.Since(began).Seconds()}, idlePercent, "")
	memory, err := memoryOf(s.daemonPID(), "Rss")
	if err == nil {
		r.add(fmt.Sprintf("daemon's memory, %d machines", manyMachines), "MB", []float64{memory}, 0, "")
	}
	return err
}

func measureList(ctx context.Context, s *setup, r *report, client micropodv1connect.ContainersClient) error {
	const calls = 20
	var samples []float64
	for range s.runs {
		before := cpuTime(s.daemonPID())
		for range calls {
			if _, err := client.List(ctx, connect.NewRequest(&v1.ListContainersRequest{All: true})); err != nil {
				return err
			}
		}
		samples = append(samples, milliseconds(cpuTime(s.daemonPID())-before)/calls)
	}
	r.add(fmt.Sprintf("list of %d machines", manyMachines), "ms of CPU", samples, listLimit, "the daemon's, per call")
	return nil
}

// measureAdoption kills the daemon; the time runs from the next one's start until every agent has answered it.
func measureAdoption(ctx context.Context, s *setup, r *report, client micropodv1connect.ContainersClient, ids []string) error {
	samples, err := times(ctx, 3, func(ctx context.Context) error {
		if err := killAndWait(s.daemonPID()); err != nil { // else a command could still reach it
			return err
		}
		if _, err := s.micropod(ctx, "version"); err != nil { // starts the next one
			return err
		}
		return answered(ctx, client, ids)
	})
	if err != nil {
		return err
	}
	r.add(fmt.Sprintf("adoption of %d machines", len(ids)), "ms", samples, adoptLimit, "from kill -9, over the daemon's start, until all agents answered")
	return nil
}

// killAndWait kills a process that is no child of ours. It is dead then, if perhaps not reaped: that is up to its parent.
func killAndWait(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil {
		return err
	}
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// answered has every guest's agent carry out a call: the signal is one that changes nothing.
func answered(ctx context.Context, client micropodv1connect.ContainersClient, ids []string) error {
	var all errgroup.Group
	for _, id := range ids {
		all.Go(func() error {
			_, err := client.Kill(ctx, connect.NewRequest(&v1.KillContainerRequest{Container: id, Signal: "WINCH"}))
			return err
		})
	}
	return all.Wait()
}

// measureFollowers has many clients follow one log from before its first line to its end.
func measureFollowers(ctx context.Context, s *setup, r *report, client micropodv1connect.ContainersClient) error {
	const lines = "20000"
	id, err := s.micropod(ctx, "create", "busybox", "sh", "-c", "seq "+lines)
	if err != nil {
		return err
	}
	var all errgroup.Group
	began := time.Now()
	if _, err := client.Start(ctx, connect.NewRequest(&v1.StartContainerRequest{Container: id})); err != nil {
		return err
	}
	for range followers {
		all.Go(func() error {
			last, n, err := follow(ctx, client, id)
			if err == nil && (last != lines || strconv.Itoa(n) != lines) {
				err = fmt.Errorf("a follower got %d lines, the last of them %q, want %s", n, last, lines)
			}
			return err
		})
	}
	if err := all.Wait(); err != nil {
		return err
	}
	r.add(fmt.Sprintf("%d clients follow %s lines", followers, lines), "ms", []float64{milliseconds(time.Since(began))}, 0, "from the start until all have all, and the container ended")
	_, err = s.micropod(ctx, "rm", "-f", id)
	return err
}

// follow reads a container's log to its end and returns the last line and their number.
func follow(ctx context.Context, client micropodv1connect.ContainersClient, id string) (last string, n int, err error) {
	stream, err := client.Logs(ctx, connect.NewRequest(&v1.LogsRequest{Container: id, Follow: true, Tail: -1, Stdout: true}))
	if err != nil {
		return "", 0, err
	}
	defer stream.Close()
	for stream.Receive() {
		n++
		last = strings.TrimSpace(string(stream.Msg().Data))
	}
	return last, n, stream.Err()
}

// measureRecords makes containers without starting them, lists and removes them.
func measureRecords(ctx context.Context, r *report, client micropodv1connect.ContainersClient) error {
	for i := range manyRecords {
		stream, err := client.Create(ctx, connect.NewRequest(&v1.CreateContainerRequest{
			Config: &v1.ContainerConfig{Image: "busybox", Name: "r" + strconv.Itoa(i), Command: []string{"true"}},
		}))
		if err != nil {
			return err
		}
		for stream.Receive() {
		}
		if err := errors.Join(stream.Err(), stream.Close()); err != nil {
			return err
		}
	}
	samples, err := times(ctx, 10, func(ctx context.Context) error {
		answer, err := client.List(ctx, connect.NewRequest(&v1.ListContainersRequest{All: true}))
		if err == nil && len(answer.Msg.Containers) != manyRecords {
			err = fmt.Errorf("%d records are listed, want %d", len(answer.Msg.Containers), manyRecords)
		}
		return err
	})
	if err != nil {
		return err
	}
	r.add(fmt.Sprintf("list of %d records", manyRecords), "ms", samples, recordsLimit, "over the API, decoded")
	for i := range manyRecords {
		if _, err := client.Remove(ctx, connect.NewRequest(&v1.RemoveContainerRequest{Container: "r" + strconv.Itoa(i)})); err != nil {
			return err
		}
	}
	return nil
}

// cpuTime is what a process's threads have used: the first figure of /proc/PID/task/TID/schedstat (nanoseconds). Go's
// threads hardly ever end, so none is missed.
func cpuTime(pid int) (sum time.Duration) {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, path := range threads {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		if f := strings.Fields(string(text)); len(f) == 3 {
			n, _ := strconv.ParseInt(f[0], 10, 64)
			sum += time.Duration(n)
		}
	}
	return sum
}
