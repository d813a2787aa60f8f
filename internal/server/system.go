// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	v1 "github.com/micropod/micropod/api/micropod/v1"
	"github.com/micropod/micropod/internal/container"
	"github.com/micropod/micropod/internal/doctor"
	"github.com/micropod/micropod/internal/version"
)

// system serves System.
type system struct {
	c       Config
	started time.Time

	engine    sync.Mutex // held while an engine is asked for its version, once
	of, asked string     // which, and its answer
}

func newSystem(c Config) *system { return &system{c: c, started: time.Now()} }

// Version says which daemon this is.
func (s *system) Version(context.Context, *connect.Request[v1.VersionRequest]) (*connect.Response[v1.VersionResponse], error) {
	return connect.NewResponse(&v1.VersionResponse{
		Version:    version.Version,
		Commit:     version.Revision(),
		GoVersion:  runtime.Version(),
		ApiVersion: version.API,
		Platform:   version.Platform(),
	}), nil
}

// Info tells about daemon and host.
func (s *system) Info(ctx context.Context, _ *connect.Request[v1.InfoRequest]) (*connect.Response[v1.InfoResponse], error) {
	engine := s.c.Doctor.Auto(ctx)
	info := &v1.InfoResponse{
		Version:       version.Version,
		DataDir:       s.c.DataDir,
		RunDir:        s.c.RunDir,
		Engine:        engine,
		EngineVersion: s.engineVersion(ctx, engine),
		Accelerator:   s.accelerator(ctx),
		CgroupVersion: doctor.CgroupVersion(),
		Cpus:          int32(runtime.NumCPU()),
		Pid:           int32(os.Getpid()),
		StartedAt:     timeToWire(s.started),
		Goroutines:    int32(runtime.NumGoroutine()),
	}
	if open, err := os.ReadDir("/proc/self/fd"); err == nil {
		info.FileDescriptors = int32(len(open)) - 1 // the one that reads the folder
	}
	if k, err := s.c.Doctor.Kernel(); err == nil {
		info.KernelPath, info.KernelVersion = k.Path, k.Version
	}
	return connect.NewResponse(info), s.count(info)
}

// count fills in what has to be counted.
func (s *system) count(info *v1.InfoResponse) error {
	var host unix.Sysinfo_t
	var name unix.Utsname
	if err := unix.Sysinfo(&host); err != nil {
		return fmt.Errorf("asking for the host's memory: %w", err)
	}
	if err := unix.Uname(&name); err != nil {
		return fmt.Errorf("asking for the host's kernel: %w", err)
	}
	all, err := s.c.Images.List()
	if err != nil {
		return err
	}
	containers := s.c.Containers.List(container.Filter{All: true})
	for _, c := range containers {
		if c.Running() {
			info.ContainersRunning++
		}
	}
	info.MemoryBytes = int64(host.Totalram) * int64(host.Unit)
	info.HostKernel = unix.ByteSliceToString(name.Release[:])
	info.Images = int32(len(all))
	info.Containers = int32(len(containers))
	info.Machines = int32(len(s.c.Machines.List()))
	return nil
}

// engineVersion asks until it is told.
func (s *system) engineVersion(ctx context.Context, engine string) string {
	s.engine.Lock()
	defer s.engine.Unlock()
	if s.asked == "" || s.of != engine {
		s.asked, _ = s.c.Doctor.EngineVersion(ctx, engine) // Doctor tells why not
		s.of = engine
	}
	return s.asked
}

func (s *system) accelerator(ctx context.Context) string {
	if usable, _, err := s.c.Doctor.ProbeKVM(ctx); err == nil && usable {
		return "kvm"
	}
	return "tcg"
}

// Doctor looks at the host.
func (s *system) Doctor(ctx context.Context, _ *connect.Request[v1.DoctorRequest]) (*connect.Response[v1.DoctorResponse], error) {
	answer := &v1.DoctorResponse{}
	for _, c := range s.c.Doctor.Checks(ctx) {
		answer.Checks = append(answer.Checks, checkToWire(c))
	}
	return connect.NewResponse(answer), nil
}

// errEventsLost ends a stream of events whose reader was too slow.
var errEventsLost = errors.New("events were lost: they were read too slowly")

// Events streams changes until the caller ends, or reads so slowly that some were lost.
func (s *system) Events(ctx context.Context, r *connect.Request[v1.EventsRequest], stream *connect.ServerStream[v1.Event]) error {
	sub := s.c.Events.Subscribe(timeFromWire(r.Msg.GetSince()))
	defer sub.Close()
	if err := stream.Send(nil); err != nil { // headers: the caller knows that it listens
		return err
	}
	until := timeFromWire(r.Msg.GetUntil())
	var end <-chan time.Time
	if !until.IsZero() {
		timer := time.NewTimer(max(0, time.Until(until)))
		defer timer.Stop()
		end = timer.C
	}
	for {
		select {
		case e, more := <-sub.Events:
			if !more {
				return errEventsLost
			}
			if !until.IsZero() && e.Time.After(until) {
				return nil
			}
			if err := stream.Send(eventToWire(e)); err != nil {
				return err
			}
		case <-end:
			if len(sub.Events) == 0 { // what happened before is sent first
				return nil
			}
			closed := make(chan time.Time)
			close(closed)
			end = closed
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
