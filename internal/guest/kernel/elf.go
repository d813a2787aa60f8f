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
)

// maxVmlinux bounds an uncompressed kernel (bytes). Debian's has 53 MB; one with
// debugging information, which nobody boots, may have a gigabyte.
const maxVmlinux int64 = 512 << 20

// The ELF note by which a kernel offers its PVH entry point (XEN_ELFNOTE_PHYS32_ENTRY,
// xen/include/public/elfnote.h). QEMU boots an uncompressed kernel by it only.
const (
	pvhNoteName = "Xen\x00"
	pvhNoteType = 18
	maxNotes    = 1 << 20 // bytes of one note segment
)

// checkVmlinux says whether QEMU and Firecracker can boot the ELF file in r of size bytes.
func checkVmlinux(r io.ReaderAt, size int64) error {
	f, err := elf.NewFile(io.NewSectionReader(r, 0, size))
	if err != nil {
		return fmt.Errorf("reading ELF: %w", err)
	}
	if f.Class != elf.ELFCLASS64 || f.Machine != elf.EM_X86_64 || f.Type != elf.ET_EXEC {
		return fmt.Errorf("ELF is %v %v %v, not an x86-64 kernel", f.Class, f.Machine, f.Type)
	}
	loadable, pvh := false, false
	for _, p := range f.Progs {
		if p.Off > uint64(size) || p.Filesz > uint64(size)-p.Off {
			return fmt.Errorf("ELF segment of %d bytes at %d does not lie within its %d bytes", p.Filesz, p.Off, size)
		}
		loadable = loadable || p.Type == elf.PT_LOAD
		if p.Type == elf.PT_NOTE {
			found, err := hasPVHNote(p)
			if err != nil {
				return err
			}
			pvh = pvh || found
		}
	}
	if !loadable {
		return errors.New("ELF has nothing to load")
	}
	if !pvh {
		return fmt.Errorf("kernel has no PVH entry point (built without CONFIG_PVH): %s", Mend)
	}
	return nil
}

// hasPVHNote walks the notes of a segment: three 32-bit numbers (size of name, size
// of contents, type), then name and contents, each padded to 4 bytes.
func hasPVHNote(p *elf.Prog) (bool, error) {
	if p.Filesz > maxNotes {
		return false, fmt.Errorf("ELF notes of %d bytes, more than the %d allowed", p.Filesz, maxNotes)
	}
	notes, err := io.ReadAll(p.Open())
	if err != nil {
		return false, fmt.Errorf("reading ELF notes: %w", err)
	}
	for len(notes) >= 12 {
		name := int(binary.LittleEndian.Uint32(notes))
		contents := int(binary.LittleEndian.Uint32(notes[4:]))
		kind := binary.LittleEndian.Uint32(notes[8:])
		notes = notes[12:]
		next := align4(name) + align4(contents)
		if name > len(notes) || next > len(notes) {
			break
		}
		if kind == pvhNoteType && string(notes[:name]) == pvhNoteName {
			return true, nil
		}
		notes = notes[next:]
	}
	return false, nil
}

func align4(n int) int { return (n + 3) &^ 3 }

// The text of /proc/version, which the kernel carries in itself.
var bannerStart = []byte("Linux version ")

// elfVersion finds the version of an uncompressed kernel.
func elfVersion(r io.ReaderAt) (string, error) {
	const chunk = 64 << 10
	buf := make([]byte, chunk)
	// Chunks overlap so that a banner on their border is seen whole.
	for off := int64(0); ; off += chunk - maxVersionString {
		n, err := r.ReadAt(buf, off)
		if err != nil && err != io.EOF {
			return "", fmt.Errorf("looking for the kernel's version: %w", err)
		}
		for part := buf[:n]; ; {
			i := bytes.Index(part, bannerStart)
			if i < 0 {
				break
			}
			part = part[i+len(bannerStart):]
			word, _, whole := bytes.Cut(part[:min(len(part), maxVersionString)], []byte{' '})
			if whole && versionPattern.Match(word) { // printf's formats have the same start
				return string(word), nil
			}
		}
		if err == io.EOF {
			return "", errors.New("names no version")
		}
	}
}
