// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"archive/tar"
	"bytes"
	"fmt"
	"testing"
)

// TestMillionRecords: PAX records by the million are refused, in one header (the tar
// reader takes 1 MiB of them) and, by the bounds on names, in many.
func TestMillionRecords(t *testing.T) {
	t.Parallel()
	var records bytes.Buffer
	for i := range 1_000_000 {
		fmt.Fprintf(&records, "15 a.%07d=b\n", i)
	}
	wantError(t, store(t, paxHeader(t, records.Bytes())), Limits{}, ErrCorrupt, 0)

	// 2,000 extended attributes in each of 500 files.
	var many []item
	for f := range 500 {
		it := reg(fmt.Sprint("f", f), "")
		it.PAXRecords = map[string]string{}
		for i := range 2_000 {
			it.PAXRecords[fmt.Sprintf("SCHILY.xattr.user.%d", i)] = "v"
		}
		many = append(many, it)
	}
	blob := gzipped(t, makeTar(t, many...))
	wantError(t, store(t, blob), Limits{Names: 1 << 20}, ErrLimit, 0)
}

// paxHeader is a tar of one file behind an extended header of these records.
func paxHeader(t *testing.T, records []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: "PaxHeaders/f", Typeflag: tar.TypeReg, Size: int64(len(records))}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(records); err != nil {
		t.Fatal(err)
	}
	if err := w.WriteHeader(&tar.Header{Name: "f", Typeflag: tar.TypeReg}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	tarred := b.Bytes()
	tarred[156] = tar.TypeXHeader
	sum := int64(8 * ' ')
	for i, c := range tarred[:tarBlock] {
		if i < 148 || i >= 156 {
			sum += int64(c)
		}
	}
	copy(tarred[148:], fmt.Sprintf("%06o\x00 ", sum))
	return tarred
}
