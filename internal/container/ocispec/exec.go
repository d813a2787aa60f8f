// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package ocispec

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// ExecConfig is what a user asks of a further process in a running container.
type ExecConfig struct {
	Command    []string
	Env        []string
	User       string // empty: the container's
	WorkingDir string // empty: the container's
	TTY        bool
	Stdin      bool
	Privileged bool
	Detach     bool // output is thrown away
	Rows, Cols uint32
}

// Exec is a further process as the agent takes it.
type Exec struct {
	Process  *specs.Process
	JSON     []byte
	User     string
	GroupAdd []string
}

// Process makes the specification of a further process in the container of b.
func Process(b *Bundle, c ExecConfig) (*Exec, error) {
	if len(c.Command) == 0 || c.Command[0] == "" {
		return nil, invalid("command", "", "no program to run is named", "micropod exec CONTAINER COMMAND [ARGUMENT...]")
	}
	if err := checkStrings("command", c.Command); err != nil {
		return nil, err
	}
	if err := checkEnv(c.Env); err != nil {
		return nil, err
	}
	cwd, err := workingDir(c.WorkingDir, b.Spec.Process.Cwd)
	if err != nil {
		return nil, err
	}
	e := &Exec{User: b.User, GroupAdd: b.GroupAdd}
	if c.User != "" {
		if err := checkUser(c.User); err != nil {
			return nil, err
		}
		e.User = c.User
	}
	e.Process = execProcess(b.Spec.Process, c, cwd)
	if e.JSON, err = json.Marshal(e.Process); err != nil {
		return nil, fmt.Errorf("encoding the process: %w", err)
	}
	if len(e.JSON) > maxSpecBytes {
		return nil, invalid("command", "", fmt.Sprintf("it takes %d bytes, at most %d are possible", len(e.JSON), maxSpecBytes), "")
	}
	return e, nil
}

// execProcess starts from the container's first process: its limits and privileges hold for all.
func execProcess(first *specs.Process, c ExecConfig, cwd string) *specs.Process {
	env := slices.Clone(first.Env)
	if c.TTY {
		env = mergeEnv(env, []string{"TERM=xterm"})
	}
	p := &specs.Process{
		Terminal:        c.TTY,
		Args:            slices.Clone(c.Command),
		Env:             mergeEnv(env, c.Env),
		Cwd:             cwd,
		Capabilities:    first.Capabilities,
		Rlimits:         first.Rlimits,
		NoNewPrivileges: first.NoNewPrivileges,
		OOMScoreAdj:     first.OOMScoreAdj,
	}
	if c.Privileged {
		p.Capabilities = capabilitySets(slices.Clone(allCapabilities))
	}
	if c.TTY && c.Rows > 0 && c.Cols > 0 {
		p.ConsoleSize = &specs.Box{Height: uint(c.Rows), Width: uint(c.Cols)}
	}
	return p
}
