// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package firecracker

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"time"
)

// Version of Firecracker.
type Version struct{ Major, Minor, Patch int }

var (
	// oldest is the first with network_overrides on snapshot load, without which no clone has a TAP of its own.
	oldest = Version{1, 12, 0}
)

// versionLimit is how long a program may take to tell its version: 3 ms on a quiet host.
const versionLimit = 10 * time.Second

var versionText = regexp.MustCompile(`\bv(\d{1,4})\.(\d{1,4})\.(\d{1,4})`)

// ParseVersion takes the output of firecracker --version or jailer --version.
func ParseVersion(text string) (Version, error) {
	found := versionText.FindStringSubmatch(text)
	if found == nil {
		return Version{}, fmt.Errorf("%.200q has no version", text)
	}
	var n [3]int
	for i := range n {
		n[i], _ = strconv.Atoi(found[i+1]) // four digits
	}
	return Version{n[0], n[1], n[2]}, nil
}

func (v Version) String() string { return fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Patch) }

// Before says whether v is older than other.
func (v Version) Before(other Version) bool {
	if v.Major != other.Major {
		return v.Major < other.Major
	}
	if v.Minor != other.Minor {
		return v.Minor < other.Minor
	}
	return v.Patch < other.Patch
}

func askVersion(program string) (Version, error) {
	ctx, cancel := context.WithTimeout(context.Background(), versionLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "--version")
	cmd.Env = []string{"LC_ALL=C"}
	out, err := cmd.Output()
	if err != nil {
		return Version{}, fmt.Errorf("asking %s for its version: %w", program, err)
	}
	v, err := ParseVersion(string(out))
	if err != nil {
		return v, fmt.Errorf("asking %s for its version: %w", program, err)
	}
	return v, nil
}
