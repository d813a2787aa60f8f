// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxMessage bounds one line from QEMU, in bytes. The longest answer asked for
	// here lists at most two block nodes a drive, about 40 KiB.
	maxMessage = 1 << 20
	// commandTimeout is for commands whose context has no nearer end: each takes
	// milliseconds, a starved host or a large device state a little longer.
	commandTimeout = 20 * time.Second
)

// errQMPLost means that the connection ended; QEMU may live on, and take another one.
var errQMPLost = errors.New("connection to QMP lost")

// commandError is QEMU's refusal of a command.
type commandError struct {
	Command string `json:"-"`
	Class   string `json:"class"`
	Desc    string `json:"desc"`
}

func (e *commandError) Error() string { return fmt.Sprintf("QMP %s: %s", e.Command, e.Desc) }

// event is something QEMU tells unasked.
type event struct {
	Name string
	Data json.RawMessage
}

// message is any line from QEMU: greeting, answer or event (QEMU's
// docs/interop/qmp-spec.txt, section 2).
type message struct {
	Greeting *struct {
		Version struct {
			QEMU struct{ Major, Minor, Micro int } `json:"qemu"`
		} `json:"version"`
	} `json:"QMP"`
	ID     *uint64         `json:"id"`
	Return json.RawMessage `json:"return"`
	Error  *commandError   `json:"error"`
	Event  string          `json:"event"`
	Data   json.RawMessage `json:"data"`
}

// parseMessage reads one line. A line that is none of the three kinds is an error.
func parseMessage(line []byte) (message, error) {
	var m message
	if err := json.Unmarshal(line, &m); err != nil {
		return message{}, fmt.Errorf("message from QMP: %w", err)
	}
	kinds := 0
	for _, is := range []bool{m.Greeting != nil, m.Event != "", m.Return != nil || m.Error != nil} {
		if is {
			kinds++
		}
	}
	if kinds != 1 || (m.Return != nil && m.Error != nil) {
		return message{}, errors.New("message from QMP is neither greeting, answer nor event")
	}
	return m, nil
}

// qmp is a connection to a QEMU's machine protocol. QEMU serves one at a time.
// Its methods may be called concurrently.
type qmp struct {
	conn    *net.UnixConn
	version string      // of QEMU, such as "7.2.22"
	onEvent func(event) // called by the reader, must not block

	writing sync.Mutex // one line at a time
	mu      sync.Mutex // guards what follows
	nextID  uint64
	waiting map[uint64]chan message
	done    chan struct{} // closed when the reader has ended
}

// dialQMP connects and takes QEMU out of its negotiation mode. onEvent is called
// for each event until the connection ends. The caller calls close.
func dialQMP(ctx context.Context, path string, onEvent func(event)) (*qmp, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	q := &qmp{conn: conn.(*net.UnixConn), onEvent: onEvent, waiting: map[uint64]chan message{}, done: make(chan struct{})}
	lines := bufio.NewScanner(conn)
	lines.Buffer(make([]byte, 0, 4096), maxMessage)
	if err := q.greet(ctx, lines); err != nil {
		conn.Close()
		return nil, err
	}
	go q.read(lines)
	if err := q.execute(ctx, "qmp_capabilities", nil, nil); err != nil {
		q.close()
		return nil, err
	}
	return q, nil
}

// greet waits for the greeting, which comes once QEMU's main loop runs.
func (q *qmp) greet(ctx context.Context, lines *bufio.Scanner) error {
	stop := context.AfterFunc(ctx, func() { q.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if !lines.Scan() {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if err := lines.Err(); err != nil {
			return err
		}
		return io.ErrUnexpectedEOF
	}
	m, err := parseMessage(lines.Bytes())
	if err != nil {
		return err
	}
	if m.Greeting == nil {
		return errors.New("QMP did not begin with a greeting")
	}
	v := m.Greeting.Version.QEMU
	q.version = fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Micro)
	return nil
}

// read hands out what comes in until the connection ends or QEMU talks nonsense.
func (q *qmp) read(lines *bufio.Scanner) {
	defer close(q.done)
	defer q.conn.Close()
	for lines.Scan() {
		m, err := parseMessage(lines.Bytes())
		if err != nil {
			return
		}
		switch {
		case m.Event != "":
			q.onEvent(event{m.Event, m.Data})
		case m.ID != nil:
			q.deliver(m)
		}
	}
}

// deliver passes an answer to who waits for it, if anyone still does.
func (q *qmp) deliver(m message) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if c, ok := q.waiting[*m.ID]; ok {
		delete(q.waiting, *m.ID)
		c <- m // has room for one
	}
}

// execute runs a command and unmarshals its answer into out, unless that is nil.
func (q *qmp) execute(ctx context.Context, command string, args, out any) error {
	return q.executeFile(ctx, command, args, out, nil)
}

// executeFile is execute with an open file passed along, for add-fd and getfd.
// The caller keeps its own.
func (q *qmp) executeFile(ctx context.Context, command string, args, out any, f *os.File) error {
	ctx, cancel := context.WithTimeoutCause(ctx, commandTimeout, fmt.Errorf("no answer within %v", commandTimeout))
	defer cancel()
	id, answer := q.expect()
	defer q.forget(id)
	if err := q.send(ctx, id, command, args, f); err != nil {
		return fmt.Errorf("QMP %s: %w", command, err)
	}
	select {
	case m := <-answer:
		return m.result(command, out)
	case <-q.done:
		return fmt.Errorf("QMP %s: %w", command, errQMPLost)
	case <-ctx.Done():
		return fmt.Errorf("QMP %s: %w", command, context.Cause(ctx))
	}
}

func (q *qmp) expect() (uint64, chan message) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.nextID++
	c := make(chan message, 1)
	q.waiting[q.nextID] = c
	return q.nextID, c
}

func (q *qmp) forget(id uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.waiting, id)
}

func (q *qmp) send(ctx context.Context, id uint64, command string, args any, f *os.File) error {
	line, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
		ID        uint64 `json:"id"`
	}{command, args, id})
	if err != nil {
		return err
	}
	var rights []byte
	if f != nil {
		rights = unix.UnixRights(int(f.Fd()))
	}
	q.writing.Lock()
	defer q.writing.Unlock()
	deadline, _ := ctx.Deadline()
	q.conn.SetWriteDeadline(deadline)
	if _, _, err := q.conn.WriteMsgUnix(append(line, '\n'), rights, nil); err != nil {
		// Half a line may be out: nothing sensible can follow.
		q.conn.Close()
		return errors.Join(errQMPLost, err)
	}
	return nil
}

func (m message) result(command string, out any) error {
	if m.Error != nil {
		m.Error.Command = command
		return m.Error
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(m.Return, out); err != nil {
		return fmt.Errorf("QMP %s: answer: %w", command, err)
	}
	return nil
}

// close ends the connection and waits for its reader.
func (q *qmp) close() {
	q.conn.Close()
	<-q.done
}
