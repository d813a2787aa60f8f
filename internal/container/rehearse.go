// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package container

import (
	"encoding/binary"
	"encoding/json"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	agentv1 "github.com/micropod/micropod/api/agent/v1"
)

// rehearsalID is the rehearsal's id in its machine; containers' are 64 hex digits.
const rehearsalID = "rehearsal"

// rehearsalPath is where the program lies that a rehearsal runs: nothing of the image is executed.
const rehearsalPath = "/.micropod-rehearsal"

// rehearsal is a container like r that ends at once: it goes the same ways in the guest, with none of the
// user's program, arguments, environment and files' contents.
func rehearsal(r *agentv1.StartContainerRequest) *agentv1.StartContainerRequest {
	var spec specs.Spec
	if err := json.Unmarshal(r.Spec, &spec); err != nil || spec.Process == nil || spec.Linux == nil {
		spec = specs.Spec{Process: &specs.Process{}, Linux: &specs.Linux{}} // it was written by ocispec: cannot be
	}
	spec.Process.Args, spec.Process.Env, spec.Process.Terminal = []string{rehearsalPath}, nil, false
	spec.Hostname, spec.Annotations = rehearsalID, nil
	text, err := json.Marshal(&spec)
	if err != nil {
		panic(err) // it came from JSON
	}
	files := []*agentv1.File{{Path: rehearsalPath, Mode: 0o755, Content: exitProgram()}}
	for _, f := range r.Files {
		files = append(files, &agentv1.File{Path: f.Path, Mode: f.Mode, Content: []byte("\n")})
	}
	return &agentv1.StartContainerRequest{
		Id: rehearsalID, Spec: text, Rootfs: r.Rootfs, Stdio: &agentv1.Stdio{}, User: r.User, GroupAdd: r.GroupAdd, Files: files,
	}
}

// exitProgram is an executable of x86-64 that calls exit_group(0) (elf(5)): a header, one segment, three instructions.
func exitProgram() []byte {
	const base, headers = 0x400000, 64 + 56
	code := []byte{0x31, 0xff, 0xb8, 231, 0, 0, 0, 0x0f, 0x05} // xor edi,edi; mov eax,231; syscall
	size := uint64(headers + len(code))
	b := []byte{0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0} // 64 bits, little-endian
	le := binary.LittleEndian
	b = le.AppendUint16(b, 2)  // executable
	b = le.AppendUint16(b, 62) // x86-64
	b = le.AppendUint32(b, 1)
	b = le.AppendUint64(b, base+headers) // entry
	b = le.AppendUint64(b, 64)           // program headers
	b = le.AppendUint64(b, 0)            // no sections
	b = le.AppendUint32(b, 0)
	for _, n := range []uint16{64, 56, 1, 0, 0, 0} { // sizes and numbers of headers
		b = le.AppendUint16(b, n)
	}
	b = le.AppendUint32(b, 1) // to be loaded
	b = le.AppendUint32(b, 5) // readable, executable
	for _, n := range []uint64{0, base, base, size, size, 0x1000} {
		b = le.AppendUint64(b, n)
	}
	return append(b, code...)
}
