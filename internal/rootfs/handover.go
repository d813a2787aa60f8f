// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Layers go to the child as open files over a socket (unix(7), SCM_RIGHTS), each when it
// is whole: a message is the layer's index, from 0, in 4 bytes (little endian), with one
// file. The child only ever receives, the parent only sends.
const handoverSize = 4

// handoverSockets gives the parent's end and the child's.
func handoverSockets() (ours, childs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	return os.NewFile(uintptr(fds[0]), "layers"), os.NewFile(uintptr(fds[1]), "layers"), nil
}

// handOver sends every layer when it is there. A child that is gone is no error here: its
// end is told elsewhere.
func (c *conversion) handOver(ctx context.Context, socket *os.File) error {
	g, ctx := errgroup.WithContext(ctx)
	var sending sync.Mutex
	for i, b := range c.blobs {
		g.Go(func() error {
			file, err := b(ctx)
			if err != nil {
				return &LayerError{Index: i, Err: err}
			}
			defer file.Close()
			sending.Lock()
			defer sending.Unlock()
			return sendLayer(socket, i, file)
		})
	}
	return g.Wait()
}

func sendLayer(socket *os.File, index int, file *os.File) error {
	name := binary.LittleEndian.AppendUint32(nil, uint32(index))
	err := unix.Sendmsg(int(socket.Fd()), name, unix.UnixRights(int(file.Fd())), nil, unix.MSG_NOSIGNAL)
	if err == nil || errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
		return nil
	}
	return fmt.Errorf("handing layer %d over: %w", index+1, err)
}

// errNoLayer: the parent ended before it sent a layer; it ends the child, too.
var errNoLayer = errors.New("the layer did not arrive")

// receiveLayers is the child's side: it takes what comes, in whatever order, for as long
// as the process lives.
func receiveLayers(socket, count int) []blob {
	arrived := make([]chan *os.File, count)
	blobs := make([]blob, count)
	for i := range arrived {
		arrived[i] = make(chan *os.File, 1)
		blobs[i] = func(ctx context.Context) (*os.File, error) {
			select {
			case f, ok := <-arrived[i]:
				if !ok {
					return nil, errNoLayer
				}
				return f, nil
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
		}
	}
	go func() {
		for range count {
			i, file, err := receiveLayer(socket)
			if err != nil || i >= count {
				break
			}
			arrived[i] <- file
		}
		for _, a := range arrived {
			close(a)
		}
	}()
	return blobs
}

func receiveLayer(socket int) (index int, file *os.File, err error) {
	name, rights := make([]byte, handoverSize), make([]byte, unix.CmsgSpace(4))
	n, oobn := 0, 0
	for {
		if n, oobn, _, _, err = unix.Recvmsg(socket, name, rights, unix.MSG_CMSG_CLOEXEC); err != unix.EINTR {
			break
		}
	}
	if err != nil || n != handoverSize {
		return 0, nil, errors.Join(errNoLayer, err)
	}
	messages, err := unix.ParseSocketControlMessage(rights[:oobn])
	if err != nil || len(messages) != 1 {
		return 0, nil, errors.Join(errNoLayer, err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return 0, nil, errors.Join(errNoLayer, err)
	}
	return int(binary.LittleEndian.Uint32(name)), os.NewFile(uintptr(fds[0]), "layer"), nil
}
