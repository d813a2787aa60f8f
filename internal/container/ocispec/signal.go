// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package ocispec

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// setStopSignal picks the user's, the image's or SIGTERM.
func setStopSignal(b *Bundle, in Input) (err error) {
	name := in.Config.StopSignal
	if name == "" {
		name = in.Image.StopSignal
	}
	b.StopSignal, err = ParseSignal("--stop-signal", name, unix.SIGTERM)
	return err
}

const (
	sigRTMin = 34 // glibc keeps 32 and 33 to itself
	sigRTMax = 64
)

// ParseSignal reads a signal's name, with or without SIG, or number. Empty means fallback.
// field names it in errors.
func ParseSignal(field, text string, fallback unix.Signal) (unix.Signal, error) {
	if text == "" {
		return fallback, nil
	}
	if n, err := strconv.Atoi(text); err == nil && n > 0 && n <= sigRTMax {
		return unix.Signal(n), nil
	}
	name := "SIG" + strings.TrimPrefix(strings.ToUpper(text), "SIG")
	if s := unix.SignalNum(name); s != 0 {
		return s, nil
	}
	if s := realtimeSignal(name); s >= sigRTMin && s <= sigRTMax {
		return s, nil
	}
	return 0, invalid(field, text, "there is no such signal", "a name such as TERM or a number from 1 to 64")
}

// realtimeSignal reads SIGRTMIN, SIGRTMIN+n, SIGRTMAX and SIGRTMAX-n; 0 when it is none.
func realtimeSignal(name string) unix.Signal {
	if name == "SIGRTMIN" {
		return sigRTMin
	}
	if name == "SIGRTMAX" {
		return sigRTMax
	}
	if plus, ok := strings.CutPrefix(name, "SIGRTMIN+"); ok {
		if n, err := strconv.ParseUint(plus, 10, 8); err == nil {
			return unix.Signal(sigRTMin + n)
		}
	}
	if minus, ok := strings.CutPrefix(name, "SIGRTMAX-"); ok {
		if n, err := strconv.ParseUint(minus, 10, 8); err == nil && n < sigRTMax {
			return unix.Signal(sigRTMax - n)
		}
	}
	return 0
}
