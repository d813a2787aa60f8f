// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build cover

package guest

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/micropod/micropod/api/agent/channel"
)

// maxCoverage bounds what an agent hands over, in bytes.
const maxCoverage = 64 << 20

// coverageName are the names that go tool covdata reads: covmeta.HASH, covcounters.HASH.PID.NANOSECONDS.
var coverageName = regexp.MustCompile(`^(covmeta\.[0-9a-f]{32}|(covcounters\.[0-9a-f]{32}\.[0-9]+)\.[0-9]+)$`)

// beforeShutdown fetches the agent's coverage counters into $GOCOVERDIR, where this process writes its own.
func (s *Session) beforeShutdown(ctx context.Context) {
	dir := os.Getenv("GOCOVERDIR")
	if dir == "" {
		return
	}
	if err := s.coverage(ctx, dir); err != nil {
		fmt.Fprintf(os.Stderr, "coverage of an agent: %v\n", err)
	}
}

func (s *Session) coverage(ctx context.Context, dir string) error {
	stream, err := s.host.Open(ctx, channel.Header{Kind: channel.Coverage})
	if err != nil {
		return err
	}
	defer stream.Close()
	stop := context.AfterFunc(ctx, func() { _ = stream.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	files := bufio.NewReader(io.LimitReader(stream, maxCoverage))
	for n := 0; ; n++ {
		err := saveCoverage(files, dir)
		if errors.Is(err, io.EOF) && n > 0 {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// saveCoverage writes the next file of r. io.EOF means that there is none.
func saveCoverage(r *bufio.Reader, dir string) error {
	size, err := r.ReadByte()
	if err != nil {
		return err
	}
	name := make([]byte, size)
	if _, err := io.ReadFull(r, name); err != nil {
		return io.ErrUnexpectedEOF
	}
	var length [4]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return io.ErrUnexpectedEOF
	}
	parts := coverageName.FindSubmatch(name)
	if parts == nil {
		return fmt.Errorf("%q is no file of counters", name)
	}
	path := filepath.Join(dir, string(name))
	if len(parts[2]) > 0 { // guests' clocks and pids are alike: the host's clock makes the name its own
		path = filepath.Join(dir, fmt.Sprintf("%s.%d", parts[2], time.Now().UnixNano()))
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if _, err := io.CopyN(f, r, int64(binary.BigEndian.Uint32(length[:]))); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
