// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"context"
	"testing"
)

// From the request to the exit of /bin/true, a stem being ready as after a restore: it is
// waited for outside of the measured time.
func BenchmarkStartToExit(b *testing.B) {
	r := newRuntime(b)
	root := busybox(b)
	for b.Loop() {
		req := request(root, dockerSpec("/bin/true"))
		p, err := r.Start(b.Context(), req)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := p.Wait(b.Context()); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		p.Stdout.Close()
		p.Stderr.Close()
		if err := r.Delete(b.Context(), req.ID); err != nil {
			b.Fatal(err)
		}
		r.spares.Wait() // the next stem
		b.StartTimer()
	}
}

// The same for a further process in a running container.
func BenchmarkExecToExit(b *testing.B) {
	r := newRuntime(b)
	req := request(busybox(b), dockerSpec("sleep", "1000"))
	if _, err := r.Start(b.Context(), req); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		p, err := r.Exec(b.Context(), req.ID, ExecRequest{Process: process("/bin/true")})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := p.Wait(b.Context()); err != nil {
			b.Fatal(err)
		}
		p.Stdout.Close()
		p.Stderr.Close()
	}
	if err := r.Delete(context.Background(), req.ID); err != nil {
		b.Fatal(err)
	}
}
