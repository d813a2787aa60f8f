// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"errors"
	"net/url"
	"syscall"

	"connectrpc.com/connect"

	v1 "github.com/micropod/micropod/api/micropod/v1"
	"github.com/micropod/micropod/internal/container"
	"github.com/micropod/micropod/internal/guest/kernel"
	"github.com/micropod/micropod/internal/image"
	"github.com/micropod/micropod/internal/lan"
	"github.com/micropod/micropod/internal/machine"
	"github.com/micropod/micropod/internal/network"
	"github.com/micropod/micropod/internal/network/mmds"
	"github.com/micropod/micropod/internal/rootfs"
	"github.com/micropod/micropod/internal/snapshot"
	"github.com/micropod/micropod/internal/template"
	"github.com/micropod/micropod/internal/vmm"
	"github.com/micropod/micropod/internal/vmm/late"
)

// requestError: a request is wrong in itself, whatever the daemon's state.
type requestError struct{ field, problem string }

func (e *requestError) Error() string { return e.field + ": " + e.problem }

// fault is one kind of failure that the API tells apart: a row of docs/errors.md. Rows are
// added, never renamed.
type fault struct {
	code string
	rpc  connect.Code
	mend string // unless the error has a Remediation of its own
	is   func(error) bool
}

// faults is the finite table. The first row that fits counts: the more special come first.
var faults = []fault{
	{"invalid_request", connect.CodeInvalidArgument, "", isA[*requestError]},
	{"invalid_request", connect.CodeInvalidArgument, "", isA[*vmm.ConfigError]},
	{"invalid_request", connect.CodeInvalidArgument, "", either[*machine.SpecError, *container.InvalidError]},
	{"invalid_reference", connect.CodeInvalidArgument, "write NAME[:TAG] or NAME@DIGEST in lower case", sentinel(image.ErrInvalidReference)},
	{"machine_not_found", connect.CodeNotFound, "", isA[*machine.NotFoundError]},
	{"template_not_found", connect.CodeNotFound, "", isA[*template.NotFoundError]},
	{"template_in_use", connect.CodeFailedPrecondition, "", isA[*template.InUseError]},
	{"container_not_found", connect.CodeNotFound, "list containers with: micropod ps -a", isA[*container.NotFoundError]},
	{"path_not_found", connect.CodeNotFound, "", isPath(true)},
	{"path_refused", connect.CodeFailedPrecondition, "", isPath(false)},
	{"network_unavailable", connect.CodeFailedPrecondition, "", isA[*machine.NoNetworkError]},
	{"network_not_found", connect.CodeNotFound, "list networks with: micropod network ls", isA[*lan.NotFoundError]},
	{"network_in_use", connect.CodeFailedPrecondition, "stop the containers that are in it, or take them out: micropod network disconnect", isA[*lan.InUseError]},
	{"network_membership", connect.CodeFailedPrecondition, "micropod network inspect tells who is in it", isA[*lan.NotJoinedError]},
	{"port_in_use", connect.CodeFailedPrecondition, "publish on another port of the host, or on any free one: -p CONTAINER_PORT", isA[*network.PortError]},
	{"address_unavailable", connect.CodeFailedPrecondition, "choose another, or leave the choice to micropod", isA[*network.AddressError]},
	{"invalid_request", connect.CodeInvalidArgument, "", either[*lan.InvalidError, *network.EgressError]},
	{"invalid_request", connect.CodeInvalidArgument, "", isA[*mmds.DocumentError]},
	{"name_in_use", connect.CodeAlreadyExists, "", isA[*lan.ExistsError]},
	{"ambiguous", connect.CodeInvalidArgument, "give more digits of the id, or the name", isA[*lan.AmbiguousError]},
	{"ambiguous", connect.CodeInvalidArgument, "give more digits of the id, or the name", either[*machine.AmbiguousError, *container.AmbiguousError]},
	{"ambiguous", connect.CodeInvalidArgument, "", sentinel(image.ErrAmbiguous)},
	{"name_in_use", connect.CodeAlreadyExists, "", either[*machine.InUseError, *container.NameInUseError]},
	{"disk_full", connect.CodeResourceExhausted, "free space: micropod rm, micropod rmi, or another --data-dir", sentinel(syscall.ENOSPC)},
	{"kernel_not_found", connect.CodeFailedPrecondition, kernel.Mend + ", or set kernel in the configuration", sentinel(kernel.ErrNotFound)},
	{"agent_not_found", connect.CodeFailedPrecondition, "install micropod-agent beside micropodd, or set agent in the configuration", sentinel(machine.ErrNoAgent)},
	{"mkfs_not_found", connect.CodeFailedPrecondition, "apt-get install e2fsprogs", sentinel(rootfs.ErrNoMkfs)},
	{"engine_unavailable", connect.CodeFailedPrecondition, "micropod doctor tells what is missing", isA[*late.UnavailableError]},
	{"unsupported", connect.CodeUnimplemented, "", isA[*vmm.UnsupportedError]},
	{"wrong_state", connect.CodeFailedPrecondition, "", either[*machine.StateError, *container.StateError]},
	{"snapshot_not_found", connect.CodeNotFound, "", isA[*snapshot.NotFoundError]},
	{"snapshot_name", connect.CodeAlreadyExists, "", isA[*snapshot.NameError]},
	{"snapshot_in_use", connect.CodeFailedPrecondition, "", isA[*snapshot.InUseError]},
	{"snapshot_damaged", connect.CodeDataLoss, "", isA[*snapshot.DamageError]},
	{"snapshot_mismatch", connect.CodeFailedPrecondition, "", isA[*machine.MismatchError]},
	{"snapshot_image_missing", connect.CodeFailedPrecondition, "", isA[*container.MissingImageError]},
	{"image_in_use", connect.CodeFailedPrecondition, "", sentinel(image.ErrInUse)},
	{"image_platform", connect.CodeFailedPrecondition, "choose an image that is made for this platform", sentinel(image.ErrPlatform)},
	{"image_unauthorized", connect.CodeUnauthenticated, "check the name, or log in to the registry: micropod login, as docker login, keeps the credentials", sentinel(image.ErrUnauthorized)},
	{"image_rate_limited", connect.CodeResourceExhausted, "wait, or log in to the registry", sentinel(image.ErrRateLimited)},
	{"image_insecure", connect.CodeFailedPrecondition, "add the registry to insecure_registries in the configuration", sentinel(image.ErrInsecure)},
	{"image_limit", connect.CodeResourceExhausted, "raise image_limits in the configuration if you trust the image", sentinel(rootfs.ErrLimit)},
	{"image_corrupt", connect.CodeDataLoss, "pull or import the image again", sentinel(image.ErrCorrupt)},
	{"image_corrupt", connect.CodeDataLoss, "the image was built or stored wrongly: push it again", sentinel(rootfs.ErrCorrupt)},
	{"image_corrupt", connect.CodeDataLoss, "the image was built or stored wrongly: push it again", sentinel(rootfs.ErrDiffID)},
	{"image_unsupported", connect.CodeFailedPrecondition, "", sentinel(image.ErrUnsupported)},
	{"image_unsupported", connect.CodeFailedPrecondition, "", sentinel(rootfs.ErrUnsupported)},
	{"image_converter", connect.CodeInternal, "try again; if it happens again an image that does so is worth a report", sentinel(rootfs.ErrConverter)},
	{"image_not_found", connect.CodeNotFound, "check the name; micropod images lists those that are here", sentinel(image.ErrNotFound)},
	{"command_not_found", connect.CodeFailedPrecondition, "", exits(127)},
	{"command_not_executable", connect.CodeFailedPrecondition, "", exits(126)},
	{"shutting_down", connect.CodeUnavailable, "try again: the daemon is started anew by the next command", sentinel(machine.ErrShutdown)},
	{"shutting_down", connect.CodeUnavailable, "try again: the daemon is started anew by the next command", sentinel(container.ErrShutdown)},
	{"shutting_down", connect.CodeUnavailable, "try again: the daemon is started anew by the next command", sentinel(image.ErrClosed)},
	{"no_log", connect.CodeFailedPrecondition, "attach to it: micropod attach", sentinel(container.ErrNoLog)},
	{"events_lost", connect.CodeResourceExhausted, "ask again, with since", sentinel(errEventsLost)},
	{"interrupted", connect.CodeAborted, "", sentinel(machine.ErrInterrupted)},
	{"interrupted", connect.CodeAborted, "", sentinel(container.ErrInterrupted)},
	{"removed", connect.CodeNotFound, "", sentinel(container.ErrRemoved)},
	{"cancelled", connect.CodeCanceled, "", sentinel(context.Canceled)},
	{"timeout", connect.CodeDeadlineExceeded, "", sentinel(context.DeadlineExceeded)},
	{"registry_unreachable", connect.CodeUnavailable, "check the registry's name and this host's network; one without TLS belongs into insecure_registries", isA[*url.Error]},
	{"boot_failed", connect.CodeInternal, "micropod doctor checks the host; micropod logs --console shows what the guest wrote", isA[*machine.StepError]},
	{"command_not_started", connect.CodeFailedPrecondition, "", isA[*container.StartError]},
}

// internal is what no row fits.
var internal = fault{code: "internal", rpc: connect.CodeInternal, mend: "the daemon's log may tell more"}

func sentinel(target error) func(error) bool {
	return func(err error) bool { return errors.Is(err, target) }
}

func isA[T error](err error) bool {
	var e T
	return errors.As(err, &e)
}

func either[A, B error](err error) bool { return isA[A](err) || isA[B](err) }

func isPath(missing bool) func(error) bool {
	return func(err error) bool {
		var e *container.PathError
		return errors.As(err, &e) && e.Missing == missing
	}
}

func exits(code int) func(error) bool {
	return func(err error) bool {
		var e *container.StartError
		return errors.As(err, &e) && e.ExitCode == code
	}
}

func faultOf(err error) fault {
	for _, f := range faults {
		if f.is(err) {
			return f
		}
	}
	return internal
}

// wireError is the one place where errors become the API's: a code for RPC
// libraries, a sentence for people, an ErrorDetail for programs. What is a
// connect error already stays as it is.
func wireError(err error) error {
	if err == nil {
		return nil
	}
	var already *connect.Error
	if errors.As(err, &already) {
		return already
	}
	f := faultOf(err)
	detail := &v1.ErrorDetail{Code: f.code, Message: err.Error(), Cause: innermost(err), Remediation: f.mend}
	var hint interface{ Remediation() string }
	if errors.As(err, &hint) && hint.Remediation() != "" {
		detail.Remediation = hint.Remediation()
	}
	var start *container.StartError
	if errors.As(err, &start) {
		detail.ExitCode = int32(start.ExitCode)
	}
	wire := connect.NewError(f.rpc, err)
	if d, err := connect.NewErrorDetail(detail); err == nil {
		wire.AddDetail(d)
	}
	return wire
}

// innermost follows the chain of single causes to its end; empty when the error has none.
func innermost(err error) string {
	last := err
	for next := errors.Unwrap(err); next != nil; next = errors.Unwrap(next) {
		last = next
	}
	if last == err {
		return ""
	}
	return last.Error()
}
