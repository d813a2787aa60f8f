// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/agent/inroot"
)

// maxUserFile bounds /etc/passwd and /etc/group of a container (bytes each).
const maxUserFile = 8 << 20

// identity is who a process runs as.
type identity struct {
	uid, gid uint32
	groups   []uint32
	home     string // from the container's /etc/passwd, "" if the user is not in there
}

// lookUpUser resolves the plan's user and groups in the container's own files.
func lookUpUser(r inroot.Root, p *processPlan) (identity, error) {
	passwd, err := openUserFile(r, "/etc/passwd")
	if err != nil {
		return identity{}, err
	}
	group, err := openUserFile(r, "/etc/group")
	if err != nil {
		return identity{}, err
	}
	name := p.User
	if name == "" {
		name = strconv.FormatUint(uint64(p.UID), 10)
	}
	found, err := user.GetExecUser(name, &user.ExecUser{Home: "/"}, reader(passwd), reader(group))
	if err != nil {
		return identity{}, &StartError{Kind: ErrUser, Sentence: err.Error()}
	}
	id := identity{uid: uint32(found.Uid), gid: p.GID, groups: p.Groups, home: found.Home}
	if p.User != "" {
		// Docker has the primary group among the supplementary ones, so that a
		// program that drops its group does not gain what the group was denied.
		id.gid = uint32(found.Gid)
		id.groups = slices.Concat([]uint32{id.gid}, ids(found.Sgids), p.Groups)
	}
	more, err := user.GetAdditionalGroups(p.GroupAdd, reader(group))
	if err != nil {
		return identity{}, &StartError{Kind: ErrUser, Sentence: err.Error()}
	}
	id.groups = slices.Concat(id.groups, ids(more))
	return id, nil
}

func ids(in []int) []uint32 {
	out := make([]uint32, len(in))
	for i, id := range in {
		out[i] = uint32(id)
	}
	return out
}

// userFile is a file of users or groups; nil if the container has none.
type userFile []byte

// reader gives the library what it takes for a missing file, too.
func reader(f userFile) io.Reader {
	if f == nil {
		return nil
	}
	return strings.NewReader(string(f))
}

// openUserFile reads a bounded regular file in the root. One that is missing, or no
// regular file, is as if it were not there: numbers need none.
func openUserFile(r inroot.Root, name string) (userFile, error) {
	// O_NONBLOCK: a FIFO must not hold the container's start.
	fd, err := r.Open(name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
	if err != nil {
		return nil, nil
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, nil
	}
	if st.Size > maxUserFile {
		return nil, &StartError{Kind: ErrUser, Sentence: fmt.Sprintf("reading the image's %s: %d bytes are more than the %d allowed", name, st.Size, maxUserFile)}
	}
	b, err := io.ReadAll(io.LimitReader(f, maxUserFile))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, &StartError{Kind: ErrUser, Sentence: fmt.Sprintf("reading the image's %s: %v", name, err)}
	}
	return b, nil
}
