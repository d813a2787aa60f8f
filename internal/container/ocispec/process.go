// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package ocispec

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// defaultPath is Docker's for images that set none.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// maxHostname is the kernel's bound on a UTS name (__NEW_UTS_LEN), in bytes.
const maxHostname = 64

var hostnamePattern = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$`)

// newProcess is the first process without what later steps add.
func newProcess(in Input, host string) (*specs.Process, error) {
	args, err := commandLine(in)
	if err != nil {
		return nil, err
	}
	env, err := environment(in, host)
	if err != nil {
		return nil, err
	}
	cwd, err := workingDir(in.Config.WorkingDir, in.Image.WorkingDir)
	if err != nil {
		return nil, err
	}
	p := &specs.Process{Terminal: in.Config.TTY, Args: args, Env: env, Cwd: cwd}
	if in.Config.TTY && in.Rows > 0 && in.Cols > 0 {
		p.ConsoleSize = &specs.Box{Height: uint(in.Rows), Width: uint(in.Cols)}
	}
	if adj := int(in.Config.OOMScoreAdj); adj != 0 {
		if adj < -1000 || adj > 1000 {
			return nil, invalid("--oom-score-adj", fmt.Sprint(adj), "must be between -1000 and 1000", "")
		}
		p.OOMScoreAdj = &adj
	}
	return p, nil
}

// commandLine joins entrypoint and command. An entrypoint of the user's makes the image's command void.
func commandLine(in Input) ([]string, error) {
	entrypoint, command := in.Image.Entrypoint, in.Image.Cmd
	if in.Config.EntrypointSet {
		entrypoint, command = in.Config.Entrypoint, nil
	}
	if len(in.Config.Command) > 0 {
		command = in.Config.Command
	}
	args := slices.Concat(entrypoint, command)
	if len(args) == 0 || args[0] == "" {
		return nil, invalid("command", "", "neither the image nor the request names a program to run",
			"add a command after the image's name")
	}
	return args, checkStrings("command", args)
}

// environment is Docker's: defaults, then the image's, then the user's. HOME is the agent's to add,
// who knows the user.
func environment(in Input, host string) ([]string, error) {
	env := []string{"PATH=" + defaultPath, "HOSTNAME=" + host}
	if in.Config.TTY {
		env = append(env, "TERM=xterm")
	}
	env = mergeEnv(env, in.Image.Env)
	if err := checkEnv(in.Config.Env); err != nil {
		return nil, err
	}
	return mergeEnv(env, in.Config.Env), nil
}

// mergeEnv overlays over on base: equal names are replaced, a bare name removes.
func mergeEnv(base, over []string) []string {
	env := slices.Clone(base)
	for _, e := range over {
		name, _, set := strings.Cut(e, "=")
		at := slices.IndexFunc(env, func(have string) bool { return strings.HasPrefix(have, name+"=") })
		switch {
		case !set && at >= 0:
			env = slices.Delete(env, at, at+1)
		case set && at >= 0:
			env[at] = e
		case set:
			env = append(env, e)
		}
	}
	return env
}

func checkEnv(env []string) error {
	for _, e := range env {
		if name, _, _ := strings.Cut(e, "="); name == "" {
			return invalid("--env", e, "the variable has no name", "write NAME=value")
		}
	}
	return checkStrings("--env", env)
}

// checkStrings refuses what execve cannot take.
func checkStrings(field string, values []string) error {
	for _, v := range values {
		if strings.IndexByte(v, 0) >= 0 {
			return invalid(field, v, "contains a NUL byte", "")
		}
	}
	return nil
}

// workingDir picks the user's, the image's or the root.
func workingDir(user, image string) (string, error) {
	dir := user
	if dir == "" {
		dir = image
	}
	if dir == "" {
		return "/", nil
	}
	if !path.IsAbs(dir) {
		return "", invalid("--workdir", dir, "must be an absolute path", "begin it with /")
	}
	return path.Clean(dir), checkStrings("--workdir", []string{dir})
}

// hostname checks the host and domain names, and makes one up from the id.
func hostname(in Input) (string, error) {
	host := in.Config.Hostname
	if host == "" && len(in.ID) >= 12 {
		host = in.ID[:12]
	}
	for field, name := range map[string]string{"--hostname": host, "--domainname": in.Config.Domainname} {
		if name == "" {
			continue
		}
		if len(name) > maxHostname || !hostnamePattern.MatchString(name) {
			return "", invalid(field, name, fmt.Sprintf("letters, digits, - and . are possible, at most %d", maxHostname), "")
		}
	}
	return host, nil
}

// setUser leaves looking up names to the agent, which sees the container's files.
func setUser(b *Bundle, in Input) error {
	b.User = in.Config.User
	if b.User == "" {
		b.User = in.Image.User
	}
	if b.User == "" {
		b.User = "0" // with root's supplementary groups of the image's /etc/group, as Docker
	}
	if err := checkUser(b.User); err != nil {
		return err
	}
	for _, g := range in.Config.GroupAdd {
		if g == "" || strings.ContainsAny(g, ":\x00\n") {
			return invalid("--group-add", g, "is not a group's name or number", "")
		}
	}
	b.GroupAdd = slices.Clone(in.Config.GroupAdd)
	return nil
}

func checkUser(user string) error {
	name, group, grouped := strings.Cut(user, ":")
	if name == "" && group == "" || grouped && group == "" || strings.ContainsAny(user, "\x00\n") || strings.Contains(group, ":") || len(user) > 256 {
		return invalid("--user", user, "is not of the form user or user:group", "names and numbers are both possible, such as 1000:1000")
	}
	return nil
}
