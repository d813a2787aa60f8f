// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package firecracker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	sdk "github.com/firecracker-microvm/firecracker-go-sdk"
	"github.com/firecracker-microvm/firecracker-go-sdk/client"
	"github.com/firecracker-microvm/firecracker-go-sdk/client/models"
	"github.com/firecracker-microvm/firecracker-go-sdk/client/operations"
	openapi "github.com/go-openapi/runtime/client"
	"github.com/go-openapi/strfmt"
)

// maxAnswer bounds what is read of an answer, in bytes: a guest may have taken Firecracker over.
const maxAnswer = 1 << 20

// api is the client of one Firecracker's socket: the SDK's, and for what that lacks plain HTTP on the
// same connections. Methods may be called concurrently; Firecracker answers one request after the other.
type api struct {
	operations.ClientIface
	transport *http.Transport
}

// newAPI makes a client of the socket at path, which is dialled with the first request.
func newAPI(path string) *api {
	runtime := sdk.NewUnixSocketTransport(path, nil, false).(*openapi.Runtime)
	transport := runtime.Transport.(*http.Transport)
	transport.MaxConnsPerHost = 1
	runtime.Transport = bounded{transport}
	c := client.NewHTTPClient(strfmt.Default)
	c.SetTransport(runtime)
	return &api{c.Operations, transport}
}

// bounded cuts answers off at maxAnswer.
type bounded struct{ http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := b.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	answer.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(answer.Body, maxAnswer), answer.Body}
	return answer, nil
}

// close lets go of the connection.
func (a *api) close() { a.transport.CloseIdleConnections() }

// APIError is a request that Firecracker refused, or did not answer.
type APIError struct {
	Request string // such as "PUT /boot-source"
	Fault   string // Firecracker's own words; empty when it did not answer
	Err     error
}

func (e *APIError) Error() string {
	if e.Fault != "" {
		return "Firecracker refused " + e.Request + ": " + e.Fault
	}
	return e.Request + " to Firecracker: " + e.Err.Error()
}

func (e *APIError) Unwrap() error { return e.Err }

// explain turns the SDK's error, which prints pointers, into an *APIError.
func explainAPI(request string, err error) error {
	if err == nil {
		return nil
	}
	e := &APIError{Request: request, Err: err}
	var refused interface{ GetPayload() *models.Error }
	if errors.As(err, &refused) && refused.GetPayload() != nil {
		e.Fault = refused.GetPayload().FaultMessage
	}
	return e
}

// send makes a request that the SDK lacks, or lacks fields of. out may be nil.
func (a *api) send(ctx context.Context, method, path string, in, out any) error {
	request := method + " " + path
	body, err := json.Marshal(in)
	if err != nil {
		return explainAPI(request, err)
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://localhost"+path, bytes.NewReader(body))
	if err != nil {
		return explainAPI(request, err)
	}
	r.Header.Set("Content-Type", "application/json")
	answer, err := bounded{a.transport}.RoundTrip(r)
	if err != nil {
		return explainAPI(request, err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return explainAPI(request, err)
	}
	if answer.StatusCode/100 != 2 {
		e := &APIError{Request: request, Err: fmt.Errorf("status %s", answer.Status)}
		var fault models.Error
		if json.Unmarshal(text, &fault) == nil {
			e.Fault = fault.FaultMessage
		}
		return e
	}
	if out == nil {
		return nil
	}
	return explainAPI(request, json.Unmarshal(text, out))
}
