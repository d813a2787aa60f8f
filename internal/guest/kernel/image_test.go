// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/binary"
	"os/exec"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

const testVersion = "6.1.0-9-cloud-amd64"

// testELF describes the ELF file that makeELF writes.
type testELF struct {
	machine elf.Machine
	kind    elf.Type
	notes   []byte // contents of the note segment; nil means a PVH note
	noLoad  bool
	cut     int64 // added to the length that the load segment claims
}

// makeELF writes an x86-64 kernel in miniature: a header, two segments, a banner.
func makeELF(e testELF) []byte {
	if e.machine == 0 {
		e.machine, e.kind = elf.EM_X86_64, elf.ET_EXEC
	}
	if e.notes == nil {
		e.notes = makeNote(pvhNoteName, pvhNoteType, 4)
	}
	text := bytes.Repeat([]byte("Linux version %s\x00 Linux version "+testVersion+" (x@y)\x00"), 100)
	const textAt = 64 + 2*56
	load := elf.PT_LOAD
	if e.noLoad {
		load = elf.PT_NULL
	}
	ident := [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)}
	var out bytes.Buffer
	for _, part := range []any{
		elf.Header64{Ident: ident, Type: uint16(e.kind), Machine: uint16(e.machine), Version: 1, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 2},
		elf.Prog64{Type: uint32(load), Off: textAt, Filesz: uint64(int64(len(text)) + e.cut), Memsz: uint64(len(text))},
		elf.Prog64{Type: uint32(elf.PT_NOTE), Off: uint64(textAt + len(text)), Filesz: uint64(len(e.notes))},
		text, e.notes,
	} {
		if err := binary.Write(&out, binary.LittleEndian, part); err != nil {
			panic(err)
		}
	}
	return out.Bytes()
}

func makeNote(name string, kind uint32, size int) []byte {
	note := binary.LittleEndian.AppendUint32(nil, uint32(len(name)))
	note = binary.LittleEndian.AppendUint32(note, uint32(size))
	note = binary.LittleEndian.AppendUint32(note, kind)
	note = append(note, name...)
	note = append(note, make([]byte, align4(len(note))-len(note))...)
	return append(note, make([]byte, align4(size))...)
}

// makeBzImage wraps a payload as the boot protocol says.
func makeBzImage(payload []byte) []byte {
	const setup = 2 // sectors
	image := make([]byte, (setup+1)*sector)
	image[offSetupSects] = setup
	binary.LittleEndian.PutUint16(image[offBootFlag:], bootFlag)
	copy(image[offMagic:], "HdrS")
	binary.LittleEndian.PutUint16(image[offProtocol:], 0x20f)
	binary.LittleEndian.PutUint16(image[offKernelVersion:], 0x300-0x200)
	copy(image[0x300:], testVersion+" (builder) #1 SMP\x00")
	binary.LittleEndian.PutUint32(image[offPayloadOffset:], 16)
	binary.LittleEndian.PutUint32(image[offPayloadLength:], uint32(len(payload)))
	image = append(image, make([]byte, 16)...)
	image = append(image, payload...)
	return append(image, "what follows the payload"...)
}

// withSize appends the size before compression as the kernel's build does.
func withSize(compressed, contents []byte) []byte {
	return binary.LittleEndian.AppendUint32(compressed, uint32(len(contents)))
}

func gzipped(contents []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	w.Write(contents)
	w.Close()
	return out.Bytes()
}

func lz4Legacy(t testing.TB, contents []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := lz4.NewWriter(&out)
	if err := w.Apply(lz4.LegacyOption(true)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(contents); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func zstdCompressed(t testing.TB, contents []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(contents, nil)
}

// xzCompressed calls xz as the kernel's build does (scripts/xz_wrap.sh), x86 filter included.
func xzCompressed(t testing.TB, contents []byte) []byte {
	t.Helper()
	if _, err := exec.LookPath("xz"); err != nil {
		t.Skip("xz is missing: apt-get install xz-utils")
	}
	cmd := exec.Command("xz", "--stdout", "--check=crc32", "--x86", "--lzma2=dict=32MiB")
	cmd.Stdin = bytes.NewReader(contents)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}
