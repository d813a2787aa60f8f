// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package channel

import (
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/hashicorp/yamux"
)

// Guest is the guest's end of a session.
type Guest struct {
	mux *yamux.Session
}

// Accept waits for a host's handshake on rwc, throwing away what comes before, and begins
// the session. It ends with rwc's error alone. rwc is the session's from here on, and not closed when Accept fails.
func Accept(rwc io.ReadWriteCloser) (*Guest, error) {
	ahead, err := answer(rwc)
	if err != nil {
		return nil, fmt.Errorf("waiting for the host: %w", err)
	}
	mux, err := yamux.Server(&pipe{ReadWriteCloser: rwc, ahead: ahead}, config())
	if err != nil {
		return nil, fmt.Errorf("starting the session: %w", err)
	}
	return &Guest{mux: mux}, nil
}

// Accept waits for the next stream. The caller reads its header (ReadHeader) and closes it. Its error is the session's end.
func (g *Guest) Accept() (*GuestStream, error) {
	s, err := g.mux.AcceptStream()
	if err != nil {
		return nil, err
	}
	return &GuestStream{Stream: s}, nil
}

// Done is closed when the session has ended.
func (g *Guest) Done() <-chan struct{} { return g.mux.CloseChan() }

// Close ends the session, its streams and its pipe.
func (g *Guest) Close() error { return g.mux.Close() }

// GuestStream is a stream of the guest's. Close is the half-close: reading goes on until the host closes too.
type GuestStream struct {
	*yamux.Stream
}

var _ net.Conn = (*GuestStream)(nil)

// Write implements io.Writer, in frames that let other streams pass between them.
func (s *GuestStream) Write(p []byte) (int, error) { return writeChunks(s.Stream, p) }

// Read implements io.Reader. io.EOF means that the host closed the stream; a
// session that ended gives ErrLost.
func (s *GuestStream) Read(p []byte) (int, error) {
	n, err := s.Stream.Read(p)
	if errors.Is(err, io.EOF) && s.Session().IsClosed() {
		err = ErrLost // yamux reports the end of a session to its streams as an ordinary end
	}
	return n, err
}

// ErrLost is what reading from a stream gives when its session ended before the host closed the stream.
var ErrLost = errors.New("session with the host ended")
