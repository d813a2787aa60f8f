// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// defaultPath is where commands are looked for if the environment has no PATH, as Docker does.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// lookPath finds the file of a command as the thread's own user sees it: in PATH if
// the name has no slash, else as it is. The errors are Docker's sentences.
func lookPath(name string, env []string) (string, error) {
	if name == "" {
		return "", &StartError{Kind: ErrCommandNotFound, Sentence: `exec: "": executable file not found in $PATH`}
	}
	if strings.Contains(name, "/") {
		return name, commandError(name, executable(name))
	}
	path, ok := lookupEnv(env, "PATH")
	if !ok {
		path = defaultPath
	}
	var denied error
	for dir := range strings.SplitSeq(path, ":") {
		if dir == "" {
			dir = "."
		}
		file := dir + "/" + name
		err := executable(file)
		if err == nil {
			return file, nil
		}
		if errors.Is(err, unix.EACCES) && denied == nil {
			denied = err
		}
	}
	if denied != nil {
		return "", commandError(name, denied)
	}
	return "", &StartError{Kind: ErrCommandNotFound, Sentence: fmt.Sprintf("exec: %q: executable file not found in $PATH", name)}
}

// executable says why the thread's user cannot execute a file. Whether it is in
// a format that the kernel knows is seen by execve alone.
func executable(file string) error {
	var st unix.Stat_t
	if err := unix.Stat(file, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return unix.EISDIR
	}
	if err := unix.Faccessat(unix.AT_FDCWD, file, unix.X_OK, unix.AT_EACCESS); err != nil && !errors.Is(err, unix.ENOSYS) {
		return err
	}
	if st.Mode&0o111 == 0 {
		return unix.EACCES
	}
	return nil
}

// commandError says in Docker's words that a command cannot be run, and of which kind that is.
func commandError(name string, err error) error {
	var errno unix.Errno
	if !errors.As(err, &errno) {
		return err
	}
	e := &StartError{Kind: ErrNotExecutable, Sentence: fmt.Sprintf("exec: %q", name), Errno: errno}
	switch errno {
	case unix.ENOENT, unix.ENOTDIR:
		e.Kind = ErrCommandNotFound
		e.Sentence = fmt.Sprintf("exec: %q: stat %s", name, name)
	case unix.ENOEXEC:
		e.Sentence = "exec " + name
	}
	return e
}

// execError is commandError for execve's own answer: the file is there, so ENOENT means its interpreter.
func execError(file string, err error) error {
	var errno unix.Errno
	if !errors.As(err, &errno) {
		return err
	}
	kind := ErrNotExecutable
	if missing(errno) {
		kind = ErrCommandNotFound
	}
	return &StartError{Kind: kind, Sentence: "exec " + file, Errno: errno}
}

func lookupEnv(env []string, key string) (string, bool) {
	// The last one wins, as in what most shells and libraries do with a list like this.
	for i := len(env) - 1; i >= 0; i-- {
		if k, v, ok := strings.Cut(env[i], "="); ok && k == key {
			return v, true
		}
	}
	return "", false
}
