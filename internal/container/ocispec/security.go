// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package ocispec

import (
	"strings"

	agentv1 "github.com/micropod/micropod/api/agent/v1"
	"github.com/micropod/micropod/internal/container/seccomp"
)

// security is what --security-opt and --privileged come to.
type security struct {
	seccomp           string // "", "unconfined" or a profile's JSON
	noNewPrivileges   bool
	systemPathsOpened bool // no masked and no read-only paths
}

// setSecurity adds masks, no_new_privs and the compiled seccomp filter.
func setSecurity(b *Bundle, in Input) error {
	s, err := parseSecurity(in.Config.SecurityOpt)
	if err != nil {
		return err
	}
	b.Spec.Process.NoNewPrivileges = s.noNewPrivileges
	if !in.Config.Privileged && !s.systemPathsOpened {
		b.Spec.Linux.MaskedPaths = maskedPaths
		b.Spec.Linux.ReadonlyPaths = readonlyPaths
	}
	if s.seccomp == "unconfined" || s.seccomp == "" && in.Config.Privileged {
		return nil
	}
	filter, warnings, err := seccomp.Compile(s.seccomp, b.Spec.Process.Capabilities.Bounding, in.Kernel)
	if err != nil {
		return invalid("--security-opt seccomp", "", err.Error(), "write seccomp=unconfined or seccomp=PROFILE.json in Docker's format")
	}
	b.Warnings = append(b.Warnings, warnings...)
	if filter != "" {
		b.Spec.Annotations[agentv1.AnnotationSeccompBPF] = filter
	}
	return nil
}

// parseSecurity reads Docker's options. Those of Linux security modules that
// say "leave me alone" hold anyway: guests have none.
func parseSecurity(options []string) (s security, err error) {
	for _, o := range options {
		key, value, set := strings.Cut(o, "=")
		if !set {
			key, value, set = strings.Cut(o, ":") // Docker's older form
		}
		switch {
		case key == "no-new-privileges" && (!set || value == "true"):
			s.noNewPrivileges = true
		case key == "no-new-privileges" && value == "false":
			s.noNewPrivileges = false
		case key == "seccomp" && value == "builtin":
			s.seccomp = ""
		case key == "seccomp" && value != "":
			s.seccomp = value
		case key == "systempaths" && value == "unconfined":
			s.systemPathsOpened = true
		case key == "apparmor" && value == "unconfined", key == "label" && value == "disable":
		case key == "apparmor", key == "label":
			return s, invalid("--security-opt", o, "guests run without Linux security modules; the machine itself is the wall", "leave it out")
		default:
			return s, invalid("--security-opt", o, "is not known",
				"seccomp=unconfined, seccomp=PROFILE, no-new-privileges or systempaths=unconfined")
		}
	}
	return s, nil
}
