// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package process

import (
	"os"
	"syscall"
)

// Readable says whether uid and gid may read a file by its mode; its folders do not matter.
func Readable(info os.FileInfo, uid, gid int) bool {
	owner, mode := info.Sys().(*syscall.Stat_t), info.Mode().Perm()
	switch {
	case uid == 0:
		return true
	case int(owner.Uid) == uid:
		return mode&0o400 != 0
	case int(owner.Gid) == gid:
		return mode&0o040 != 0
	default:
		return mode&0o004 != 0
	}
}
