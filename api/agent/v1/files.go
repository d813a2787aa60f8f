// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package agentv1

import (
	"encoding/binary"
	"fmt"
	"io"

	"google.golang.org/protobuf/proto"
)

// Bounds of a stream of kind files, in bytes.
const (
	MaxFilesMessage = 64 << 10
	MaxFilesData    = 32 << 10 // of a tar archive in one message
	MaxPath         = 4096
)

// WriteFiles writes a message behind its length, in one Write.
func WriteFiles(w io.Writer, m *FilesMessage) error {
	frame, err := proto.MarshalOptions{}.MarshalAppend(make([]byte, 4, 64), m)
	if err != nil {
		return err
	}
	size := len(frame) - 4
	if size > MaxFilesMessage {
		return fmt.Errorf("message of %d bytes, more than %d", size, MaxFilesMessage)
	}
	binary.BigEndian.PutUint32(frame, uint32(size))
	_, err = w.Write(frame)
	return err
}

// ReadFiles reads the next message. io.EOF: there is none; a length beyond the bound is refused before memory is taken.
func ReadFiles(r io.Reader) (*FilesMessage, error) {
	var prefix [4]byte
	if _, err := io.ReadFull(r, prefix[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(prefix[:])
	if size > MaxFilesMessage {
		return nil, fmt.Errorf("message of %d bytes, more than %d", size, MaxFilesMessage)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, noEOF(err)
	}
	m := new(FilesMessage)
	if err := proto.Unmarshal(body, m); err != nil {
		return nil, err
	}
	return m, nil
}

// noEOF keeps an end within a message from looking like one between messages.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// FilesReader reads the archive's bytes of a stream until the other side's end.
type FilesReader struct {
	// Next reads the next message.
	Next func() (*FilesMessage, error)
	// Failed makes the error of an end that is not well.
	Failed func(*FilesEnd) error

	rest []byte
	err  error
}

// Read implements io.Reader. io.EOF: the other side has said that all is done.
func (f *FilesReader) Read(p []byte) (int, error) {
	for len(f.rest) == 0 && f.err == nil {
		f.err = f.fill()
	}
	if len(f.rest) == 0 {
		return 0, f.err
	}
	n := copy(p, f.rest)
	f.rest = f.rest[n:]
	return n, nil
}

func (f *FilesReader) fill() error {
	m, err := f.Next()
	if err != nil {
		return noEOF(err)
	}
	switch m := m.Message.(type) {
	case *FilesMessage_Data:
		f.rest = m.Data
		return nil
	case *FilesMessage_End:
		if m.End.GetCode() == 0 {
			return io.EOF
		}
		return f.Failed(m.End)
	}
	return fmt.Errorf("message %T in the middle of an archive", m.Message)
}

// FilesWriter writes an archive's bytes in messages of a stream.
type FilesWriter struct{ Send func(*FilesMessage) error }

// Write implements io.Writer.
func (f FilesWriter) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 {
		n := min(len(p), MaxFilesData)
		if err := f.Send(&FilesMessage{Message: &FilesMessage_Data{Data: p[:n]}}); err != nil {
			return written, err
		}
		written, p = written+n, p[n:]
	}
	return written, nil
}
