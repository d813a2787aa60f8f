// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package vmm

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// HostCPU names the first processor's model and a sum of all that the kernel tells of its abilities.
// path is that of /proc/cpuinfo. A guest under KVM that was saved on one goes on only on its like.
func HostCPU(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err != nil {
		return "", err
	}
	sum, model := sha256.New(), ""
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		switch name = strings.TrimSpace(name); name {
		case "":
			if model != "" {
				return fmt.Sprintf("%s (%x)", model, sum.Sum(nil)[:6]), nil
			}
		case "model name":
			model = strings.TrimSpace(value)
			fallthrough
		case "vendor_id", "cpu family", "model", "stepping", "microcode", "flags", "vmx flags":
			fmt.Fprintf(sum, "%s:%s\n", name, strings.TrimSpace(value))
		}
	}
	return "", errors.New(path + " tells of no processor")
}
