// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if IsChild() {
		ChildMain()
	}
	if len(os.Args) == 2 && os.Args[1] == probeArgument {
		probeMain()
	}
	goleak.VerifyTestMain(m)
}
