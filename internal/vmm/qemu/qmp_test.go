// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const greeting = `{"QMP":{"version":{"qemu":{"micro":22,"minor":2,"major":7},"package":"x"},"capabilities":["oob"]}}` + "\n"

// serveQMP is a QEMU that greets and then answers each command by answer, which
// gets the id; a nil answer for a command ends the connection.
func serveQMP(t *testing.T, answers map[string]func(id string) string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "qmp")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { l.Close(); <-done; os.RemoveAll(dir) })
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			answerQMP(conn, answers)
		}
	}()
	return path
}

func answerQMP(conn net.Conn, answers map[string]func(id string) string) {
	defer conn.Close()
	fmt.Fprint(conn, greeting)
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		var command struct {
			Execute string
			ID      json.Number
		}
		if json.Unmarshal(lines.Bytes(), &command) != nil {
			return
		}
		answer, ok := answers[command.Execute]
		switch {
		case ok && answer == nil:
			return
		case ok:
			fmt.Fprint(conn, answer(command.ID.String()))
		default:
			fmt.Fprintf(conn, `{"return":{},"id":%s}`+"\n", command.ID)
		}
	}
}

func always(s string) func(string) string { return func(string) string { return s } }

func TestQMP(t *testing.T) {
	t.Parallel()
	events := make(chan event, 1)
	path := serveQMP(t, map[string]func(string) string{
		"stop": func(id string) string {
			return `{"event":"STOP","data":{"a":1},"timestamp":{"seconds":1}}` + "\n" + `{"return":{},"id":999}` + "\n" + `{"return":{"status":"paused"},"id":` + id + "}\n"
		},
		"refused": func(id string) string { return `{"error":{"class":"GenericError","desc":"no"},"id":` + id + "}\n" },
		"silent":  always(""),
		"list":    func(id string) string { return `{"return":[1],"id":` + id + "}\n" },
		"die":     nil,
	})
	q, err := dialQMP(t.Context(), path, func(e event) { events <- e })
	if err != nil {
		t.Fatal(err)
	}
	defer q.close()
	if q.version != "7.2.22" {
		t.Errorf("version %q, want 7.2.22", q.version)
	}
	var answer struct{ Status string }
	if err := q.execute(t.Context(), "stop", nil, &answer); err != nil || answer.Status != "paused" {
		t.Errorf("stop: %+v (%v), want paused", answer, err)
	}
	if e := <-events; e.Name != "STOP" || string(e.Data) != `{"a":1}` {
		t.Errorf("event %+v, want STOP", e)
	}
	var refused *commandError
	if err := q.execute(t.Context(), "refused", nil, nil); !errors.As(err, &refused) || refused.Class != "GenericError" || err.Error() != "QMP refused: no" {
		t.Errorf("refused: %v, want QEMU's refusal", err)
	}
	if err := q.execute(t.Context(), "list", nil, &answer); err == nil {
		t.Error("a list was taken for an object")
	}
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := q.execute(short, "silent", nil, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("silent: %v, want the context's end", err)
	}
	if len(q.waiting) != 0 {
		t.Errorf("%d commands are still waited for", len(q.waiting))
	}
	if err := q.execute(t.Context(), "die", nil, nil); !errors.Is(err, errQMPLost) {
		t.Errorf("die: %v, want errQMPLost", err)
	}
	if err := q.execute(t.Context(), "after", nil, nil); !errors.Is(err, errQMPLost) {
		t.Errorf("after the end: %v, want errQMPLost", err)
	}
}

// TestQMPNonsense: a QEMU that was taken over cannot make us hang or take memory.
func TestQMPNonsense(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{
		"no JSON":       "hello\n",
		"no message":    "{}\n",
		"two at once":   `{"event":"A","return":{}}` + "\n",
		"endless line":  strings.Repeat("x", maxMessage+1) + "\n",
		"deeply nested": strings.Repeat("[", 20000) + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := serveQMP(t, map[string]func(string) string{"query-status": always(answer)})
			q, err := dialQMP(t.Context(), path, func(event) {})
			if err != nil {
				t.Fatal(err)
			}
			defer q.close()
			if err := q.execute(t.Context(), "query-status", nil, nil); !errors.Is(err, errQMPLost) {
				t.Errorf("%v, want errQMPLost", err)
			}
		})
	}
}

// TestQMPGreeting: what is not a QEMU, or ends or hangs at once, is an error in time.
func TestQMPGreeting(t *testing.T) {
	t.Parallel()
	for name, first := range map[string]string{"ends": "", "nonsense": "hi\n", "an event": `{"event":"A"}` + "\n"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, err := os.MkdirTemp("", "qmp")
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(dir)
			l, err := net.Listen("unix", dir+"/s")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				if conn, err := l.Accept(); err == nil {
					fmt.Fprint(conn, first)
					conn.Close()
				}
			}()
			if _, err := dialQMP(t.Context(), dir+"/s", func(event) {}); err == nil {
				t.Error("connected")
			}
			short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			if _, err := dialQMP(short, dir+"/s", func(event) {}); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("nobody accepts: %v, want the context's end", err)
			}
		})
	}
}

func FuzzParseMessage(f *testing.F) {
	for _, seed := range []string{
		greeting, `{"return":{},"id":1}`, `{"return":[],"id":18446744073709551615}`, `{"error":{"class":"a","desc":"b"},"id":2}`,
		`{"event":"SHUTDOWN","data":{"guest":true,"reason":"guest-reset"},"timestamp":{"seconds":1,"microseconds":2}}`,
		`{"return":null}`, `{"error":{},"return":{}}`, `{"id":-1,"return":{}}`, "[]", "null", "",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		m, err := parseMessage(line)
		if err != nil {
			if m.Greeting != nil || m.Return != nil || m.Event != "" {
				t.Errorf("an error came with a message: %+v", m)
			}
			return
		}
		if m.Error != nil && m.Return != nil {
			t.Errorf("both an error and a return: %s", line)
		}
		if m.Event != "" {
			(&machine{attention: make(chan struct{}, 1), portOpen: make(chan struct{}, 1), migrated: make(chan string, 1)}).onEvent(event{m.Event, m.Data})
		}
	})
}
