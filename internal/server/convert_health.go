// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"google.golang.org/protobuf/types/known/durationpb"

	v1 "github.com/micropod/micropod/api/micropod/v1"
	"github.com/micropod/micropod/internal/container"
)

func healthFromWire(h *v1.HealthCheck) container.Health {
	return container.Health{
		Test:          h.GetTest(),
		Interval:      h.GetInterval().AsDuration(),
		Timeout:       h.GetTimeout().AsDuration(),
		StartPeriod:   h.GetStartPeriod().AsDuration(),
		StartInterval: h.GetStartInterval().AsDuration(),
		Retries:       int(h.GetRetries()),
	}
}

func healthCheckToWire(h container.Health) *v1.HealthCheck {
	return &v1.HealthCheck{
		Test:          h.Test,
		Interval:      durationpb.New(h.Interval),
		Timeout:       durationpb.New(h.Timeout),
		StartPeriod:   durationpb.New(h.StartPeriod),
		StartInterval: durationpb.New(h.StartInterval),
		Retries:       uint32(h.Retries),
	}
}

func healthToWire(s container.HealthState) *v1.Health {
	if s.Status == "" {
		return nil
	}
	h := &v1.Health{Status: string(s.Status), FailingStreak: uint32(s.FailingStreak)}
	for _, c := range s.Log {
		h.Log = append(h.Log, &v1.HealthResult{Start: timeToWire(c.Start), End: timeToWire(c.End), ExitCode: int32(c.ExitCode), Output: c.Output})
	}
	return h
}
