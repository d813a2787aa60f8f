// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"syscall"
	"time"
)

// maxBackoff is the longest wait of our own making.
const maxBackoff = 15 * time.Second

// worthRetrying tells if the same request may succeed a moment later.
func worthRetrying(err error) bool {
	var status *StatusError
	if errors.As(err, &status) {
		return status.Code == 408 || status.Code == 429 || status.Code >= 500
	}
	var (
		unknown x509.UnknownAuthorityError
		name    x509.HostnameError
		invalid x509.CertificateInvalidError
		dns     *net.DNSError
		local   *sinkError
		differs *mismatchError
	)
	switch {
	case errors.As(err, &differs):
		return true
	case errors.Is(err, context.Canceled), errors.Is(err, ErrInsecure), errors.Is(err, ErrCorrupt), errors.As(err, &local):
		return false
	case errors.As(err, &unknown), errors.As(err, &name), errors.As(err, &invalid):
		return false
	case errors.As(err, &dns):
		return !dns.IsNotFound
	}
	return true
}

// retry calls try until it succeeds, fails for good, or has failed
// cfg.Attempts times in a row without progress (what try's first result
// tells). noted, if not nil, hears of each failure that will be retried.
func (c *Client) retry(ctx context.Context, what string, noted func(error), try func() (progressed bool, err error)) error {
	for failures := 0; ; {
		progressed, err := try()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%s: %w", what, context.Cause(ctx))
		}
		if progressed {
			failures = 0
		}
		failures++
		if !worthRetrying(err) || failures >= c.attempts(err) {
			return fmt.Errorf("%s: %w", what, err)
		}
		wait := c.wait(failures, err)
		c.cfg.Logger.Debug("retrying", "what", what, "after", wait, "err", err)
		if noted != nil {
			noted(err)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}

// attempts is lower where nobody listens: a wrong port should not cost the
// user half a minute, a registry being restarted gets its second. What is
// corrupt twice stays so.
func (c *Client) attempts(err error) int {
	if errors.Is(err, ErrCorrupt) {
		return 2
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return min(3, c.cfg.Attempts)
	}
	return c.cfg.Attempts
}

// wait is exponential with a jitter of a quarter, or what the registry asked.
func (c *Client) wait(failures int, err error) time.Duration {
	var status *StatusError
	if errors.As(err, &status) && status.RetryAfter > 0 {
		return status.RetryAfter
	}
	d := min(c.cfg.Backoff<<min(failures-1, 10), maxBackoff)
	return d + rand.N(d/4+1)
}
