// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/protobuf/types/known/timestamppb"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

// TestMain lets the test binary be micropod, and a micropodd beside it that serves a fake.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"micropod":  func() { os.Exit(Main(context.Background(), os.Args[1:])) },
		"micropodd": func() { os.Exit(fakeMicropodd(os.Args[1:])) },
	})
}

// TestScripts runs the command lines of testdata/script against a fake daemon; those named
// daemon_* find none and start micropodd.
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", Setup: setUpScript, RequireExplicitExec: true, RequireUniqueNames: true,
		UpdateScripts: *update,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": scriptExits, "daemon": scriptDaemon, "request": scriptRequest, "fault": scriptFault, "eventually": scriptEventually,
		},
	})
}

type daemonKey struct{}

func setUpScript(e *testscript.Env) error {
	// The work folder's own path may be too long for a socket's address.
	run, err := os.MkdirTemp("", "mp")
	if err != nil {
		return err
	}
	e.Defer(func() { _ = os.RemoveAll(run) })
	e.Vars = append(e.Vars, "MICROPOD_RUN_DIR="+run, "MICROPOD_DATA_DIR="+e.WorkDir+"/data", "RUN="+run, "MICROPOD_CONFIG=",
		"TERM=xterm", "LC_ALL=C", "HOME="+e.WorkDir)
	if dir := os.Getenv("MICROPOD_COVERDIR"); dir != "" { // see scripts/test.sh
		e.Setenv("GOCOVERDIR", dir)
	}
	d := newFakeDaemon(run)
	e.Values[daemonKey{}] = d
	e.Defer(d.end)
	e.Defer(func() { endDaemon(run) })
	if strings.HasPrefix(filepath.Base(e.WorkDir), "script-daemon_") {
		return nil
	}
	return d.listen()
}

// endDaemon kills the micropodd that a script had started in run.
func endDaemon(run string) {
	text, err := os.ReadFile(filepath.Join(run, "micropodd.pid"))
	if err != nil {
		return
	}
	if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
		p, _ := os.FindProcess(pid)
		_ = p.Kill()
	}
}

func scriptFake(ts *testscript.TestScript) *fakeDaemon { return ts.Value(daemonKey{}).(*fakeDaemon) }

// scriptExits is "exits CODE COMMAND...": the command must end with just that code.
func scriptExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND...")
	}
	code := 0
	var ended *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &ended) {
		code = ended.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if fmt.Sprint(code) != args[0] {
		ts.Fatalf("%s ended with %d, want %s", strings.Join(args[1:], " "), code, args[0])
	}
}

// scriptRequest is "request RPC": the last request to it goes to standard output, as JSON.
func scriptRequest(ts *testscript.TestScript, neg bool, args []string) {
	text, err := scriptFake(ts).last(args[0])
	if neg {
		if err == nil {
			ts.Fatalf("%s was called: %s", args[0], text)
		}
		return
	}
	ts.Check(err)
	fmt.Fprintln(ts.Stdout(), strings.ReplaceAll(text, ", ", ","))
}

// scriptFault is "fault RPC CODE [SENTENCE]": the RPC fails from now on.
func scriptFault(ts *testscript.TestScript, _ bool, args []string) {
	faults := map[string]error{
		"unavailable": connect.NewError(connect.CodeUnavailable, errors.New("going away")),
		"plain":       connect.NewError(connect.CodeInternal, errors.New("two\nlines \x1b[31m")),
		"126":         refusal(connect.CodeFailedPrecondition, "command_not_executable", "starting \"/etc\": permission denied", "", 126),
		"full":        refusal(connect.CodeResourceExhausted, "disk_full", "no space left on device", "free space: micropod rm", 0),
		"none":        nil,
	}
	d := scriptFake(ts)
	d.change(func() { d.faults[args[0]] = faults[args[1]] })
}

// scriptDaemon is "daemon stop|listen|slow|checks ok|failed|events|hold RPC|error-container".
func scriptDaemon(ts *testscript.TestScript, _ bool, args []string) {
	d := scriptFake(ts)
	switch args[0] {
	case "stop":
		d.stop()
	case "listen":
		ts.Check(d.listen())
	case "slow":
		d.change(func() { d.slow = 600 * time.Millisecond })
	case "checks":
		d.change(func() { d.checks = fakeChecks(args[1] == "failed") })
	case "events":
		d.change(func() { d.events = fakeEvents() })
	case "drop-after":
		n, err := strconv.Atoi(args[1])
		ts.Check(err)
		d.change(func() { d.dropAfter = n })
	default:
		ts.Fatalf("daemon %q is unknown", args[0])
	}
}

// scriptEventually runs a command until it succeeds and prints the pattern.
func scriptEventually(ts *testscript.TestScript, _ bool, args []string) {
	deadline := time.Now().Add(10 * time.Second)
	for ts.Exec(args[0], args[1:]...) != nil {
		if time.Now().After(deadline) {
			ts.Fatalf("%s never succeeded", strings.Join(args, " "))
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func fakeChecks(failed bool) []*v1.Check {
	checks := []*v1.Check{
		{Name: "kvm", Status: v1.CheckStatus_CHECK_STATUS_WARNING, Finding: "not usable: last words:\nqemu: \x1b[1mlost\nmore", Mend: "load kvm_intel"},
		{Name: "qemu", Status: v1.CheckStatus_CHECK_STATUS_OK, Finding: "/usr/bin/qemu"},
	}
	if failed {
		checks = append(checks, &v1.Check{Name: "kernel", Status: v1.CheckStatus_CHECK_STATUS_FAILED, Finding: "none", Mend: "apt-get install it"})
	}
	return checks
}

func fakeEvents() []*v1.Event {
	at := timestamppb.New(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	return []*v1.Event{
		{Time: at, Type: "container", Action: "start", Id: "c001", Name: "web", Attributes: map[string]string{"image": "busybox"}},
		{Time: at, Type: "container", Action: "die", Id: "c001", Name: "web", Attributes: map[string]string{"exitCode": "3"}},
		{Time: at, Type: "image", Action: "pull", Id: "sha256:aa", Name: "busybox"},
	}
}
