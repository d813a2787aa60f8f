// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// fakeBoot gives files of the test's folder.
type fakeBoot struct {
	dir string
	err error
}

func (b fakeBoot) Boot(_ context.Context, kernel string, nested bool) (Boot, error) {
	if b.err != nil {
		return Boot{}, b.err
	}
	if kernel != "" {
		return Boot{}, fmt.Errorf("kernel %q: %w", kernel, os.ErrNotExist)
	}
	content := strings.Repeat("0f", 32) // the files' names tell it, as BootFiles' do
	boot := Boot{Kernel: filepath.Join(b.dir, "vmlinux-"+content), Initrd: filepath.Join(b.dir, "initramfs-"+content+".cpio"), TSCKHz: 2_000_000}
	return boot, errors.Join(os.WriteFile(boot.Kernel, nil, 0o600), os.WriteFile(boot.Initrd, nil, 0o600))
}
