// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
)

// maxModule bounds a module, compressed or not (bytes); Debian's largest have 10 MB.
const maxModule = 64 << 20

// Module is one loadable module.
type Module struct {
	Name string // as in lsmod: without suffixes, "_" for "-"
	Path string // the file, possibly compressed
}

// Read returns the module's contents, decompressed.
func (mod Module) Read() ([]byte, error) {
	f, err := os.Open(mod.Path)
	if err != nil {
		return nil, fmt.Errorf("module %s: %w", mod.Name, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxModule+1))
	if err != nil {
		return nil, fmt.Errorf("reading module %s: %w", mod.Name, err)
	}
	if len(data) > maxModule {
		return nil, fmt.Errorf("module %s has more than %d bytes", mod.Path, maxModule)
	}
	data, err = decompressAll(data, maxModule)
	if err != nil {
		return nil, fmt.Errorf("decompressing module %s: %w", mod.Path, err)
	}
	return data, nil
}

// signatureMagic ends a signed module (include/linux/module_signature.h).
const signatureMagic = "~Module signature appended~\n"

// WithoutSignature returns a module's contents without the signature behind it, for
// kernels that do not insist on one: in software emulation each check takes a guest
// some 8 ms at boot, 0.15 s for all. What is not signed comes back as it is.
//
// Behind the ELF file lie the signature, then 12 bytes of which the last four are the
// signature's length (big-endian), then the magic string.
func WithoutSignature(data []byte) []byte {
	body, ok := bytes.CutSuffix(data, []byte(signatureMagic))
	if !ok || len(body) < 12 {
		return data
	}
	length := int64(binary.BigEndian.Uint32(body[len(body)-4:]))
	if length > int64(len(body)-12) {
		return data
	}
	return body[:int64(len(body)-12)-length]
}
