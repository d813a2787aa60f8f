// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package files

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// attributePrefix begins the PAX records that carry extended attributes.
	attributePrefix = "SCHILY.xattr."
	// maxAttributes bounds the names of a file's attributes, and each value (bytes); the kernel's own bound is 64 KiB each.
	maxAttributes = 64 << 10
)

// carried tells the extended attributes that mean the same in another place: file
// capabilities, and what users store.
func carried(name string) bool {
	return name == "security.capability" || strings.HasPrefix(name, "user.")
}

// attributes reads those of an O_PATH descriptor's file as PAX records. What cannot be read is left out.
func attributes(fd int) map[string]string {
	file := fmt.Sprintf("/proc/self/fd/%d", fd)
	var names [maxAttributes]byte
	n, err := unix.Listxattr(file, names[:])
	if err != nil || n <= 0 {
		return nil
	}
	var records map[string]string
	for name := range strings.SplitSeq(strings.TrimRight(string(names[:n]), "\x00"), "\x00") {
		if !carried(name) {
			continue
		}
		value := make([]byte, maxAttributes)
		n, err := unix.Getxattr(file, name, value)
		if err != nil {
			continue
		}
		if records == nil {
			records = map[string]string{}
		}
		records[attributePrefix+name] = string(value[:n])
	}
	return records
}

// setAttributes gives an open file those of an archive's entry.
func setAttributes(fd int, records map[string]string) error {
	for key, value := range records {
		name, ok := strings.CutPrefix(key, attributePrefix)
		if !ok || !carried(name) {
			continue
		}
		if err := unix.Fsetxattr(fd, name, []byte(value), 0); err != nil {
			return fmt.Errorf("setting the attribute %s: %w", name, err)
		}
	}
	return nil
}
