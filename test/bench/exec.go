// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"io"
	"os"
	"time"
)

// measureExec times "exec true" from the command line's start to its end.
func measureExec(ctx context.Context, s *setup, r *report) error {
	id, err := s.micropod(ctx, "run", "-d", "busybox", "sleep", "1000000")
	if err != nil {
		return err
	}
	samples, err := times(ctx, 3*s.runs, func(ctx context.Context) error {
		_, err := s.micropod(ctx, "exec", id, "true")
		return err
	})
	if err != nil {
		return err
	}
	r.add("micropod exec C true", "ms", samples, 0, "command line to its exit")
	samples, err = times(ctx, 3*s.runs, func(ctx context.Context) error {
		_, err := s.micropod(ctx, "ps", "-q")
		return err
	})
	if err != nil {
		return err
	}
	r.add("micropod ps -q", "ms", samples, 0, "command line to its exit")
	_, err = s.micropod(ctx, "rm", "-f", id)
	return err
}

// streamBytes is how much goes through standard output for one sample.
const streamBytes = 64 << 20

// measureStreams times a container's standard output at the caller's end.
func measureStreams(ctx context.Context, s *setup, r *report) error {
	var out, in []float64
	for range 3 {
		rate, err := rate(ctx, s, nil, "run", "--rm", "busybox", "head", "-c", "64m", "/dev/zero")
		if err != nil {
			return err
		}
		out = append(out, rate)
		zero, err := os.Open("/dev/zero")
		if err != nil {
			return err
		}
		rate, err = rateIn(ctx, s, io.LimitReader(zero, streamBytes))
		_ = zero.Close()
		if err != nil {
			return err
		}
		in = append(in, rate)
	}
	r.add("standard output", "MB/s", out, 0, "first byte to last, 64 MiB, log included")
	r.add("standard input", "MB/s", in, 0, "64 MiB, the machine's boot included")
	return nil
}

func rate(ctx context.Context, s *setup, stdin io.Reader, args ...string) (float64, error) {
	c := s.command(ctx, args...)
	c.Stdin = stdin
	c.Stderr = os.Stderr
	stdout, err := c.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := c.Start(); err != nil {
		return 0, err
	}
	if _, err := io.ReadFull(stdout, make([]byte, 1)); err != nil {
		return 0, err
	}
	began := time.Now()
	n, err := io.Copy(io.Discard, stdout)
	if err != nil {
		return 0, err
	}
	took := time.Since(began)
	return float64(n) / 1e6 / took.Seconds(), c.Wait()
}

func rateIn(ctx context.Context, s *setup, stdin io.Reader) (float64, error) {
	c := s.command(ctx, "run", "--rm", "-i", "busybox", "sh", "-c", "cat > /dev/null")
	c.Stdin, c.Stderr = stdin, os.Stderr
	began := time.Now()
	if err := c.Run(); err != nil {
		return 0, err
	}
	return streamBytes / 1e6 / time.Since(began).Seconds(), nil
}
