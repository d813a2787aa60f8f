// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"connectrpc.com/connect"
	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	v1 "github.com/micropod/micropod/api/micropod/v1"
	"github.com/micropod/micropod/internal/cli/archive"
)

type cpOptions struct{ owners, follow, quiet bool }

func newCp(a *app) *cobra.Command {
	o := &cpOptions{}
	c := &cobra.Command{
		Use:   "cp [flags] CONTAINER:PATH PATH|- | PATH|- CONTAINER:PATH",
		Short: "Copy files and folders between a container and this host",
		Long: `Copy files and folders between a container and this host.

With - in place of a host's path, a tar archive is written to standard output or read from standard input. A path
that ends in /. means a folder's content. Links never lead out of the container, nor out of the folder that is
copied to. What is copied into a container belongs to root, what comes out of one to the caller, unless -a is
given. Devices, and set-user-ID bits, do not come out. A container that does not run is booted for the copy,
without being started.`,
		Example: `  micropod cp web:/etc/nginx/nginx.conf .
  micropod cp ./site/. web:/usr/share/nginx/html
  micropod cp web:/var/log - | tar t
  tar c site | micropod cp - web:/srv`,
		Args:              exactArgs(2, "a source and a destination"),
		RunE:              func(c *cobra.Command, args []string) error { return runCp(c.Context(), a, o, args[0], args[1]) },
		ValidArgsFunction: completeCp(a),
	}
	f := c.Flags()
	f.BoolVarP(&o.owners, "archive", "a", false, "keep users and groups (by number)")
	f.BoolVarP(&o.follow, "follow-link", "L", false, "follow a symbolic link at the source's end")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "do not tell what was copied")
	return c
}

// containerPath splits CONTAINER:PATH. A path of this host that has a colon is written with "/" or "./" before it.
func containerPath(arg string) (container, path string, ok bool) {
	if filepath.IsAbs(arg) {
		return "", arg, false
	}
	container, path, ok = strings.Cut(arg, ":")
	if !ok || strings.HasPrefix(container, ".") || strings.Contains(container, "/") {
		return "", arg, false
	}
	return container, path, true
}

func runCp(ctx context.Context, a *app, o *cpOptions, from, to string) error {
	source, sourcePath, out := containerPath(from)
	target, targetPath, in := containerPath(to)
	switch {
	case out && in:
		return usagef("copy to this host first, or pipe: micropod cp A:/f - | micropod cp - B:/", "copying between containers is not supported")
	case !out && !in:
		return usagef("write CONTAINER:PATH for the one in the container", "neither %q nor %q is in a container", from, to)
	case out && sourcePath == "" || in && targetPath == "":
		return usagef("write CONTAINER:PATH", "the path in the container is empty")
	case out && source == "" || in && target == "":
		return usagef("write CONTAINER:PATH", "the container's name is empty")
	}
	if _, err := a.connect(ctx); err != nil {
		return err
	}
	var bytes int64
	var err error
	if out {
		bytes, err = a.copyFrom(ctx, o, source, sourcePath, to)
	} else {
		bytes, err = a.copyTo(ctx, o, from, target, targetPath)
	}
	if err != nil {
		return err
	}
	if !o.quiet && from != "-" && to != "-" {
		fmt.Fprintf(a.err, "Successfully copied %s to %s\n", units.HumanSize(float64(bytes)), printable(to))
	}
	return nil
}

// copyFrom reads a path of a container to this host and tells how many bytes of archive that took.
func (a *app) copyFrom(ctx context.Context, o *cpOptions, container, path, to string) (int64, error) {
	if to == "-" && isTerminal(a.out) {
		return 0, usagef("redirect the output or name a file", "a tar archive is not written to a terminal")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // a stream that is left before its end
	stream, err := a.client.containers.CopyFrom(ctx, connect.NewRequest(&v1.CopyFromRequest{Container: container, Path: path, Follow: o.follow}))
	if err != nil {
		return 0, err
	}
	defer stream.Close()
	r := &archiveReader{stream: stream}
	stat, err := r.stat()
	if err != nil {
		return 0, err
	}
	if to == "-" {
		_, err := io.Copy(a.out, r)
		return r.bytes, err
	}
	target, err := archive.LocalTarget(to)
	if err != nil {
		return 0, err
	}
	name := archive.Name(containerBase(path))
	place, err := archive.Choose(name, isFolder(stat), target, archive.SplitLocal)
	if err != nil {
		return 0, fmt.Errorf("copying to %s: %w", to, err)
	}
	done, err := archive.Unpack(r, archive.Unpacking{Place: place, Source: name, KeepOwner: o.owners})
	if err != nil {
		return r.bytes, err
	}
	if done.Skipped > 0 {
		fmt.Fprintf(a.err, "note: %d devices and FIFOs were left out\n", done.Skipped)
	}
	_, err = io.Copy(io.Discard, r) // what comes behind the archive is its padding, or a failure
	return r.bytes, err
}

// containerBase makes a path of a container absolute, its end kept.
func containerBase(path string) string { return "/" + strings.TrimLeft(path, "/") }

func isFolder(s *v1.PathStat) bool { return s.GetMode()&0o170000 == 0o040000 }

// archiveReader reads the bytes of CopyFrom.
type archiveReader struct {
	stream *connect.ServerStreamForClient[v1.CopyFromResponse]
	rest   []byte
	bytes  int64 // read so far
}

func (r *archiveReader) stat() (*v1.PathStat, error) {
	if !r.stream.Receive() {
		if err := r.stream.Err(); err != nil {
			return nil, err
		}
		return nil, errors.New("the daemon ended the answer without an archive")
	}
	return r.stream.Msg().GetStat(), nil
}

func (r *archiveReader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		if !r.stream.Receive() {
			if err := r.stream.Err(); err != nil {
				return 0, err
			}
			return 0, io.EOF
		}
		r.rest = r.stream.Msg().GetData()
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	r.bytes += int64(n)
	return n, nil
}
