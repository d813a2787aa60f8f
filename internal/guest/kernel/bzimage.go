// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
)

// The fields used of the real-mode header ("The Linux/x86 Boot Protocol",
// Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header"); offsets are
// from the start of the image, numbers are little-endian.
const (
	offSetupSects    = 0x1f1 // u8: size of the setup code in sectors; 0 means 4
	offBootFlag      = 0x1fe // u16: 0xAA55
	offMagic         = 0x202 // "HdrS"
	offProtocol      = 0x206 // u16: boot protocol version
	offKernelVersion = 0x20e // u16: offset of the version string, less 0x200
	offPayloadOffset = 0x248 // u32: from the start of the protected-mode code
	offPayloadLength = 0x24c // u32
	headerEnd        = 0x250

	bootFlag               = 0xaa55
	protocolMin            = 0x0208 // the first with payload_offset and payload_length
	sector                 = 512
	maxVersionString       = 256
	maxImage         int64 = 256 << 20 // bytes; today's are 6 to 20 MB
)

var errNotBzImage = errors.New("neither a bzImage with boot protocol 2.08 or newer nor an ELF vmlinux")

// bzImage is where to find things in a compressed kernel.
type bzImage struct {
	version       string // first word of the version string, as in uname -r
	payloadOffset int64  // from the start of the file
	payloadLength int64
}

// readBzImage parses the header of an image of size bytes.
func readBzImage(r io.ReaderAt, size int64) (bzImage, error) {
	var h [headerEnd]byte
	if size < headerEnd {
		return bzImage{}, errNotBzImage
	}
	if _, err := r.ReadAt(h[:], 0); err != nil {
		return bzImage{}, fmt.Errorf("reading the boot header: %w", err)
	}
	u16 := func(off int) int64 { return int64(binary.LittleEndian.Uint16(h[off:])) }
	u32 := func(off int) int64 { return int64(binary.LittleEndian.Uint32(h[off:])) }
	if u16(offBootFlag) != bootFlag || string(h[offMagic:offMagic+4]) != "HdrS" || u16(offProtocol) < protocolMin {
		return bzImage{}, errNotBzImage
	}
	setup := int64(h[offSetupSects])
	if setup == 0 {
		setup = 4
	}
	image := bzImage{payloadOffset: (setup+1)*sector + u32(offPayloadOffset), payloadLength: u32(offPayloadLength)}
	if image.payloadLength == 0 || image.payloadOffset+image.payloadLength > size {
		return bzImage{}, fmt.Errorf("payload of %d bytes at %d does not lie within the %d bytes of the image",
			image.payloadLength, image.payloadOffset, size)
	}
	var err error
	image.version, err = versionString(r, u16(offKernelVersion)+0x200)
	return image, err
}

// A version names a folder, so it must be one plain path element.
var versionPattern = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z.+~_-]*$`)

// versionString reads "6.1.0-1-cloud-amd64 (builder) #1 ..." and returns its first word.
func versionString(r io.ReaderAt, offset int64) (string, error) {
	buf := make([]byte, maxVersionString)
	n, err := r.ReadAt(buf, offset)
	if err != nil && err != io.EOF {
		return "", fmt.Errorf("reading the kernel's version: %w", err)
	}
	line, _, _ := bytes.Cut(buf[:n], []byte{0})
	word, _, _ := bytes.Cut(line, []byte{' '})
	if !versionPattern.Match(word) {
		return "", fmt.Errorf("kernel names no version but %q", word)
	}
	return string(word), nil
}

// imageVersion returns the version of the bzImage or ELF vmlinux at path.
func imageVersion(path string) (string, error) {
	f, size, err := openImage(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if isELF(f) {
		version, err := elfVersion(io.NewSectionReader(f, 0, size))
		if err != nil {
			return "", fmt.Errorf("kernel %s: %w", path, err)
		}
		return version, nil
	}
	image, err := readBzImage(f, size)
	if err != nil {
		return "", fmt.Errorf("kernel %s: %w", path, err)
	}
	return image.version, nil
}

// openImage opens a kernel that is a regular file of sane size. The caller closes it.
func openImage(path string) (*os.File, int64, error) {
	info, err := os.Stat(path) // before the open, which would wait on a FIFO
	if err != nil {
		return nil, 0, fmt.Errorf("kernel: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() > maxVmlinux {
		return nil, 0, fmt.Errorf("kernel %s: not a regular file of at most %d bytes", path, maxVmlinux)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, fmt.Errorf("kernel: %w", err)
	}
	return f, info.Size(), nil
}

func isELF(r io.ReaderAt) bool {
	var magic [4]byte
	_, err := r.ReadAt(magic[:], 0)
	return err == nil && string(magic[:]) == elf.ELFMAG
}
