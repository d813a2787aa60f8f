// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"

	"connectrpc.com/connect"

	v1 "github.com/micropod/micropod/api/micropod/v1"
	"github.com/micropod/micropod/internal/container"
	"github.com/micropod/micropod/internal/guest/kernel"
	"github.com/micropod/micropod/internal/image"
	"github.com/micropod/micropod/internal/lan"
	"github.com/micropod/micropod/internal/machine"
	"github.com/micropod/micropod/internal/network"
	"github.com/micropod/micropod/internal/rootfs"
	"github.com/micropod/micropod/internal/snapshot"
	"github.com/micropod/micropod/internal/template"
	"github.com/micropod/micropod/internal/vmm"
	"github.com/micropod/micropod/internal/vmm/late"
)

func TestErrorsOfTheCore(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	boot := func(err error) error { return &machine.StepError{ID: "m", Step: "starting", Err: err} }
	for _, c := range []struct {
		err  error
		rpc  connect.Code
		code string
		exit int32
	}{
		{&requestError{"a", "b"}, connect.CodeInvalidArgument, "invalid_request", 0},
		{&machine.SpecError{Field: "memory", Problem: "small", Mend: "more"}, connect.CodeInvalidArgument, "invalid_request", 0},
		{&container.InvalidError{Field: "--cap-add"}, connect.CodeInvalidArgument, "invalid_request", 0},
		{boot(&vmm.ConfigError{Field: "Dir"}), connect.CodeInvalidArgument, "invalid_request", 0},
		{image.ErrInvalidReference, connect.CodeInvalidArgument, "invalid_reference", 0},
		{&machine.NotFoundError{Ref: "x"}, connect.CodeNotFound, "machine_not_found", 0},
		{&template.NotFoundError{Ref: "x"}, connect.CodeNotFound, "template_not_found", 0},
		{&template.InUseError{ID: "x"}, connect.CodeFailedPrecondition, "template_in_use", 0},
		{&snapshot.NotFoundError{Ref: "x"}, connect.CodeNotFound, "snapshot_not_found", 0},
		{&snapshot.NameError{Name: "x"}, connect.CodeAlreadyExists, "snapshot_name", 0},
		{&snapshot.InUseError{Ref: "x"}, connect.CodeFailedPrecondition, "snapshot_in_use", 0},
		{boot(&snapshot.DamageError{Ref: "x"}), connect.CodeDataLoss, "snapshot_damaged", 0},
		{boot(&machine.MismatchError{Snapshot: "x"}), connect.CodeFailedPrecondition, "snapshot_mismatch", 0},
		{&container.MissingImageError{Err: image.ErrNotFound}, connect.CodeFailedPrecondition, "snapshot_image_missing", 0},
		{&container.NotFoundError{Ref: "x"}, connect.CodeNotFound, "container_not_found", 0},
		{&container.PathError{Missing: true}, connect.CodeNotFound, "path_not_found", 0},
		{&container.PathError{}, connect.CodeFailedPrecondition, "path_refused", 0},
		{boot(&machine.NoNetworkError{Err: errors.New("x")}), connect.CodeFailedPrecondition, "network_unavailable", 0},
		{boot(&lan.NotFoundError{Ref: "x"}), connect.CodeNotFound, "network_not_found", 0},
		{&lan.InUseError{Machines: []string{"x"}}, connect.CodeFailedPrecondition, "network_in_use", 0},
		{&lan.NotJoinedError{}, connect.CodeFailedPrecondition, "network_membership", 0},
		{boot(&network.PortError{Err: errors.New("x")}), connect.CodeFailedPrecondition, "port_in_use", 0},
		{boot(&network.AddressError{What: "x"}), connect.CodeFailedPrecondition, "address_unavailable", 0},
		{&lan.InvalidError{What: "x"}, connect.CodeInvalidArgument, "invalid_request", 0},
		{&lan.ExistsError{}, connect.CodeAlreadyExists, "name_in_use", 0},
		{&lan.AmbiguousError{}, connect.CodeInvalidArgument, "ambiguous", 0},
		{&machine.AmbiguousError{}, connect.CodeInvalidArgument, "ambiguous", 0},
		{&container.AmbiguousError{}, connect.CodeInvalidArgument, "ambiguous", 0},
		{image.ErrAmbiguous, connect.CodeInvalidArgument, "ambiguous", 0},
		{&machine.InUseError{What: "name"}, connect.CodeAlreadyExists, "name_in_use", 0},
		{&container.NameInUseError{}, connect.CodeAlreadyExists, "name_in_use", 0},
		{boot(fmt.Errorf("writing: %w", syscall.ENOSPC)), connect.CodeResourceExhausted, "disk_full", 0},
		{boot(kernel.ErrNotFound), connect.CodeFailedPrecondition, "kernel_not_found", 0},
		{boot(machine.ErrNoAgent), connect.CodeFailedPrecondition, "agent_not_found", 0},
		{boot(rootfs.ErrNoMkfs), connect.CodeFailedPrecondition, "mkfs_not_found", 0},
		{boot(&late.UnavailableError{Engine: "qemu", Err: errors.New("gone")}), connect.CodeFailedPrecondition, "engine_unavailable", 0},
		{boot(&vmm.UnsupportedError{}), connect.CodeUnimplemented, "unsupported", 0},
		{&machine.StateError{}, connect.CodeFailedPrecondition, "wrong_state", 0},
		{&container.StateError{}, connect.CodeFailedPrecondition, "wrong_state", 0},
		{&image.InUseError{Image: "x"}, connect.CodeFailedPrecondition, "image_in_use", 0},
		{&image.PlatformError{Want: "x"}, connect.CodeFailedPrecondition, "image_platform", 0},
		{image.ErrUnauthorized, connect.CodeUnauthenticated, "image_unauthorized", 0},
		{image.ErrRateLimited, connect.CodeResourceExhausted, "image_rate_limited", 0},
		{image.ErrInsecure, connect.CodeFailedPrecondition, "image_insecure", 0},
		{image.ErrCorrupt, connect.CodeDataLoss, "image_corrupt", 0},
		{&rootfs.LayerError{Err: rootfs.ErrCorrupt}, connect.CodeDataLoss, "image_corrupt", 0},
		{&rootfs.LayerError{Err: rootfs.ErrDiffID}, connect.CodeDataLoss, "image_corrupt", 0},
		{&rootfs.LayerError{Err: rootfs.ErrUnsupported}, connect.CodeFailedPrecondition, "image_unsupported", 0},
		{&rootfs.LayerError{Err: rootfs.ErrLimit}, connect.CodeResourceExhausted, "image_limit", 0},
		{rootfs.ErrConverter, connect.CodeInternal, "image_converter", 0},
		{image.ErrUnsupported, connect.CodeFailedPrecondition, "image_unsupported", 0},
		{image.ErrNotFound, connect.CodeNotFound, "image_not_found", 0},
		{&container.StartError{ExitCode: 127, Err: errors.New("no such file")}, connect.CodeFailedPrecondition, "command_not_found", 127},
		{&container.StartError{ExitCode: 126, Err: errors.New("no permission")}, connect.CodeFailedPrecondition, "command_not_executable", 126},
		{&container.StartError{ExitCode: 125, Err: boot(errors.New("x"))}, connect.CodeInternal, "boot_failed", 125},
		{&container.StartError{ExitCode: 125, Err: errors.New("no such user")}, connect.CodeFailedPrecondition, "command_not_started", 125},
		{&url.Error{Op: "Get", URL: "https://x", Err: errors.New("no such host")}, connect.CodeUnavailable, "registry_unreachable", 0},
		{machine.ErrShutdown, connect.CodeUnavailable, "shutting_down", 0},
		{container.ErrShutdown, connect.CodeUnavailable, "shutting_down", 0},
		{image.ErrClosed, connect.CodeUnavailable, "shutting_down", 0},
		{errEventsLost, connect.CodeResourceExhausted, "events_lost", 0},
		{container.ErrNoLog, connect.CodeFailedPrecondition, "no_log", 0},
		{boot(machine.ErrInterrupted), connect.CodeAborted, "interrupted", 0},
		{container.ErrInterrupted, connect.CodeAborted, "interrupted", 0},
		{container.ErrRemoved, connect.CodeNotFound, "removed", 0},
		{boot(context.Canceled), connect.CodeCanceled, "cancelled", 0},
		{context.DeadlineExceeded, connect.CodeDeadlineExceeded, "timeout", 0},
		{boot(errors.New("x")), connect.CodeInternal, "boot_failed", 0},
		{errors.New("x"), connect.CodeInternal, "internal", 0},
	} {
		d := wantError(t, wireError(fmt.Errorf("outer: %w", c.err)), c.rpc, c.code)
		if d.ExitCode != c.exit {
			t.Errorf("%v: exit code %d, want %d", c.err, d.ExitCode, c.exit)
		}
		if d.Cause == "" {
			t.Errorf("%v: no cause", c.err)
		}
		seen[c.code] = true
	}
	for _, f := range append(faults, internal) {
		if !seen[f.code] {
			t.Errorf("fault %s is never tested", f.code)
		}
	}
}

func TestErrorsThatNeedNoWork(t *testing.T) {
	t.Parallel()
	if err := wireError(nil); err != nil {
		t.Errorf("nil became %v", err)
	}
	already := connect.NewError(connect.CodeOutOfRange, errors.New("x"))
	if got := wireError(fmt.Errorf("outer: %w", already)); got != error(already) {
		t.Errorf("a connect error became %v", got)
	}
	d := detail(t, wireError(&machine.SpecError{Field: "memory", Problem: "small", Mend: "ask for more"}))
	if d.Remediation != "ask for more" || d.Cause != "" {
		t.Errorf("detail is %v, want the error's own remediation and no cause", d)
	}
}

func detail(t *testing.T, err error) *v1.ErrorDetail {
	t.Helper()
	var e *connect.Error
	if !errors.As(err, &e) {
		t.Fatalf("%v is no connect error", err)
	}
	value, err := e.Details()[0].Value()
	if err != nil {
		t.Fatal(err)
	}
	return value.(*v1.ErrorDetail)
}

// TestErrorsAreDocumented holds docs/errors.md to the table.
func TestErrorsAreDocumented(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/errors.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range append(faults, internal) {
		if row := fmt.Sprintf("| `%s` | %s |", f.code, f.rpc); !strings.Contains(string(page), row) {
			t.Errorf("docs/errors.md has no row %q", row)
		}
	}
}
