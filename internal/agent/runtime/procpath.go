// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package runtime

import "fmt"

// procPath is a name under which this process reaches what fd is open on. It needs a
// proc of this process's pid namespace at /proc.
func procPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }
