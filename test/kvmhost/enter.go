// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package kvmhost

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"sync"
	"testing"
	"time"
)

// requiredVariable turns a skip for want of a host into a failure.
const requiredVariable = "MICROPOD_TEST_ALL"

// shared is the host of this test binary, once one was needed.
var shared struct {
	sync.Mutex
	host  *Host
	err   error
	tried bool
}

// binariesVariable names the folder where programs under test, built with counters, write these, and binariesThere
// is that folder in the host.
const (
	binariesVariable = "MICROPOD_COVERDIR"
	binariesThere    = "/tmp/cover-binaries"
)

// binaryThere is where the test binary lies in the host.
const binaryThere = "/tmp/test.bin"

// Enter says whether the test runs in a KVM host. If not, it has it run there: this binary, this one test,
// these flags. Then t has failed or been skipped if the test there was, and the caller returns.
//
// files are copied into the host before; env is set there, NAME=VALUE.
func Enter(t *testing.T, files Files, env ...string) bool {
	t.Helper()
	if Inside() {
		return true
	}
	if testing.Short() {
		t.Skip("boots machines")
	}
	run(t, files, pattern(t.Name(), flag.Lookup("test.run").Value.String()), env)
	return false
}

// Run has other tests of this binary run in the KVM host, those that the pattern picks (as -test.run does).
func Run(t *testing.T, files Files, picked string, env ...string) {
	t.Helper()
	if testing.Short() {
		t.Skip("boots machines")
	}
	run(t, files, picked, env)
}

// Main is to be called by TestMain: it runs the tests and ends the host.
func Main(m *testing.M) int {
	code := m.Run()
	if err := closeShared(); err != nil {
		fmt.Fprintln(os.Stderr, "ending the KVM host:", err)
		return 1
	}
	return code
}

func closeShared() error {
	shared.Lock()
	defer shared.Unlock()
	h := shared.host
	shared.host, shared.err, shared.tried = nil, nil, false
	if h == nil {
		return nil
	}
	return h.Close()
}

// sharedHost boots a host with the test binary in it, or skips the test.
func sharedHost(t *testing.T) *Host {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if !shared.tried {
		shared.tried = true
		began := time.Now()
		shared.host, shared.err = startForTests(t)
		t.Logf("KVM host up after %v", time.Since(began).Round(time.Millisecond))
	}
	if shared.err == nil {
		return shared.host
	}
	if os.Getenv(requiredVariable) != "" {
		t.Fatalf("%s is set and there is no KVM host: %v", requiredVariable, shared.err)
	}
	t.Skipf("no KVM host: %v", shared.err)
	return nil
}

func startForTests(t *testing.T) (*Host, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	h, err := Start(context.WithoutCancel(t.Context()))
	if err != nil {
		return nil, err
	}
	if err := h.Put(t.Context(), Files{binaryThere: self}); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return h, nil
}

// run has the tests picked run in the host. TCG's virtualisation is not without faults: where the host itself dies or hangs, which says
// nothing of what is tested, they run once more, in a new one.
func run(t *testing.T, files Files, picked string, env []string) {
	t.Helper()
	h := sharedHost(t)
	err := runOn(t, h, files, picked, env)
	if err == nil {
		return
	}
	t.Logf("the KVM host failed, once more in a new one: %v\nits console:\n%s", err, h.qemu.consoleTail())
	if err := closeShared(); err != nil {
		t.Logf("ending it: %v", err)
	}
	h = sharedHost(t)
	if err := runOn(t, h, files, picked, env); err != nil {
		t.Errorf("the KVM host failed again: %v\nits console:\n%s", err, h.qemu.consoleTail())
	}
}

// runOn returns an error when the host failed, and tells t when the tests did.
func runOn(t *testing.T, h *Host, files Files, picked string, env []string) error {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	go h.watch(ctx, cancel)
	if err := h.Put(ctx, files); err != nil {
		return err
	}
	name := strings.ReplaceAll(t.Name(), "/", "_")
	coverage := path.Join("/tmp/cover", name)
	args := append([]string{binaryThere}, flags(t, picked, coverage)...)
	var output bytes.Buffer
	out := io.Writer(&output)
	if testing.Verbose() {
		out = io.MultiWriter(&output, os.Stdout)
	}
	if code, err := h.Run(ctx, Command{Args: []string{"/bin/mkdir", "-p", coverage, binariesThere}}); err != nil || code != 0 {
		return fmt.Errorf("preparing the KVM host: code %d, %w", code, err)
	}
	began := time.Now()
	code, err := h.Run(ctx, Command{Args: args, Env: append(env, insideVariable+"=1", binariesVariable+"="+binariesThere, wholeVariable+"="+os.Getenv(wholeVariable), requiredVariable+"="+os.Getenv(requiredVariable)), Stdout: out, Stderr: out})
	switch text := output.String(); {
	case err != nil:
		return fmt.Errorf("%w; what ran in it said\n%s", err, text)
	case code != 0:
		t.Errorf("failed in the KVM host (code %d):\n%s", code, text)
	case !strings.Contains(text, "--- PASS: "+t.Name()) && strings.Contains(text, "--- SKIP: "+t.Name()):
		t.Skipf("skipped in the KVM host:\n%s", text)
	default:
		t.Logf("%d passed, %d skipped in the KVM host, %v", strings.Count(text, "--- PASS"), strings.Count(text, "--- SKIP"), time.Since(began).Round(time.Millisecond))
	}
	for to, from := range map[string]string{gocoverdir(): coverage, os.Getenv(binariesVariable): binariesThere} {
		if to == "" {
			continue
		}
		if err := h.Get(ctx, from, to); err != nil {
			return err
		}
	}
	return nil
}

// How often a host is asked for a sign of life, and how long it may owe one: on a loaded machine it takes seconds.
const (
	signEvery = 10 * time.Second
	signLimit = 90 * time.Second
)

// watch ends what waits for a host that gives no sign of life any more.
func (h *Host) watch(ctx context.Context, cancel context.CancelCauseFunc) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(signEvery):
		}
		limited, done := context.WithTimeout(ctx, signLimit)
		_, err := h.Run(limited, Command{Args: []string{"/bin/true"}})
		done()
		if err != nil && ctx.Err() == nil {
			cancel(fmt.Errorf("it gives no sign of life: %w", err))
			return
		}
	}
}

// flags are those that this binary was given, for the tests picked.
func flags(t *testing.T, picked, coverage string) []string {
	args := []string{"-test.v", "-test.run=" + picked}
	if deadline, ok := t.Deadline(); ok {
		args = append(args, "-test.timeout="+(time.Until(deadline)-5*time.Second).Round(time.Second).String())
	}
	for _, name := range []string{"test.failfast", "test.parallel", "test.skip"} {
		if f := flag.Lookup(name); f != nil && f.Value.String() != f.DefValue {
			args = append(args, "-"+name+"="+f.Value.String())
		}
	}
	if gocoverdir() != "" {
		args = append(args, "-test.gocoverdir="+coverage)
	}
	return args
}

// pattern picks one test, and of its subtests those that the user picked.
func pattern(name, picked string) string {
	var parts []string
	for part := range strings.SplitSeq(name, "/") {
		parts = append(parts, "^"+part+"$")
	}
	if given := strings.Split(picked, "/"); len(given) > len(parts) {
		parts = append(parts, given[len(parts):]...)
	}
	return strings.Join(parts, "/")
}

// gocoverdir is where `go test -cover -args -test.gocoverdir=DIR` wants counters.
func gocoverdir() string {
	f := flag.Lookup("test.gocoverdir")
	if f == nil {
		return ""
	}
	return f.Value.String()
}
