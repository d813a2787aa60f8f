// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package logfile

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newLog(t testing.TB, c Config) *Log {
	t.Helper()
	if c.Path == "" {
		c.Path = filepath.Join(t.TempDir(), "x-json.log")
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = 1 << 30
	}
	if c.MaxFiles == 0 {
		c.MaxFiles = 3
	}
	l := New(c)
	t.Cleanup(l.LetGo)
	return l
}

func begin(t testing.TB, l *Log) {
	t.Helper()
	if err := l.Begin(); err != nil {
		t.Fatal(err)
	}
}

var everything = ReadOptions{Tail: -1, Stdout: true, Stderr: true}

// read returns entries as "stream text", one each.
func read(t testing.TB, l *Log, o ReadOptions) []string {
	t.Helper()
	got := []string{}
	err := l.Read(t.Context(), o, func(e Entry) error {
		if e.Time.IsZero() {
			t.Errorf("entry %q has no time", e.Data)
		}
		got = append(got, fmt.Sprintf("%v %s", e.Stream, e.Data))
		return nil
	})
	if err != nil {
		t.Errorf("reading: %v", err)
	}
	return got
}

func same(t testing.TB, what string, got, want []string) {
	t.Helper()
	if strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

// line is Docker's own view of an entry.
type line struct {
	Log, Stream string
	Time        time.Time
}

func docker(t testing.TB, path string) (all []line) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range bytes.SplitAfter(text, []byte("\n")) {
		if len(one) == 0 {
			continue
		}
		var l line
		if err := json.Unmarshal(one, &l); err != nil || one[len(one)-1] != '\n' {
			t.Fatalf("%q is no line of JSON: %v", one, err)
		}
		all = append(all, l)
	}
	return all
}

func TestFileIsDockers(t *testing.T) {
	t.Parallel()
	l := newLog(t, Config{})
	begin(t, l)
	text := "plain\n" + "quote \" back \\ tab \t cr \r bell \a nul \x00 <&>\n" + "umlaut ü, euro €, emoji 🦉, \u2028\u2029\n" + "bad \xff\xc3 bytes\n" + "\n"
	if got := l.Append(Stdout, 0, []byte(text)); got != uint64(len(text)) {
		t.Errorf("logged up to %d, want %d", got, len(text))
	}
	l.Append(Stderr, 0, []byte("err\n"))
	if err := l.End(); err != nil {
		t.Fatal(err)
	}
	want := append(strings.SplitAfter(strings.ToValidUTF8(strings.ReplaceAll(text, "\xff\xc3", "\ufffd\ufffd"), ""), "\n")[:5], "err\n")
	var got []string
	for _, e := range docker(t, l.config.Path) {
		got = append(got, e.Log)
		if (e.Stream == "stderr") != (e.Log == "err\n") || time.Since(e.Time) > time.Minute || e.Time.Location() != time.UTC {
			t.Errorf("%q is of %s at %v", e.Log, e.Stream, e.Time)
		}
	}
	same(t, "as encoding/json reads it", got, want)
	for i, entry := range read(t, l, everything) {
		if _, text, _ := strings.Cut(entry, " "); text != want[i] {
			t.Errorf("entry %d reads back as %q, want %q", i, text, want[i])
		}
	}
}

func TestLinesAreLoggedWhenTheyEnd(t *testing.T) {
	t.Parallel()
	l := newLog(t, Config{})
	begin(t, l)
	if got := l.Append(Stdout, 0, []byte("one\ntw")); got != 4 {
		t.Errorf("logged up to %d with half a line open, want 4", got)
	}
	l.Append(Stderr, 0, []byte("between\n"))
	if got := l.Append(Stdout, 6, []byte("o\nprompt: ")); got != 8 {
		t.Errorf("logged up to %d, want 8", got)
	}
	same(t, "before the end", read(t, l, everything), []string{"stdout one\n", "stderr between\n", "stdout two\n"})
	if err := l.End(); err != nil {
		t.Fatal(err)
	}
	same(t, "after the end", read(t, l, everything), []string{"stdout one\n", "stderr between\n", "stdout two\n", "stdout prompt: "})
	if got := l.Append(Stdout, 17, []byte("late")); got != 21 {
		t.Errorf("an ended log holds bytes back: %d", got)
	}
}

func TestLongLinesAreCutInPieces(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		text   string
		pieces []int
	}{
		"exactly one piece":        {strings.Repeat("x", 16384) + "\n", []int{16384, 1}},
		"one byte less":            {strings.Repeat("x", 16383) + "\n", []int{16384}},
		"many":                     {strings.Repeat("x", 40_000) + "\nshort\n", []int{16384, 16384, 7233, 6}},
		"characters are not split": {"x" + strings.Repeat("€", 6000) + "\n", []int{16384 - 0, 18001 + 1 - 16384}},
	} {
		for _, step := range []int{1 << 20, 16384, 1000, 7} {
			l := newLog(t, Config{})
			begin(t, l)
			for at := 0; at < len(test.text); at += step {
				l.Append(Stdout, uint64(at), []byte(test.text[at:min(len(test.text), at+step)]))
			}
			_ = l.End()
			var all string
			var pieces []int
			for _, e := range docker(t, l.config.Path) {
				all += e.Log
				pieces = append(pieces, len(e.Log))
				if len(e.Log) > 16384+1 || !utf8.ValidString(e.Log) || strings.Contains(e.Log, "\ufffd") {
					t.Errorf("%s in steps of %d: a piece of %d bytes is too long or no text", name, step, len(e.Log))
				}
			}
			if all != test.text || len(pieces) != len(test.pieces) {
				t.Errorf("%s in steps of %d: %d bytes in pieces of %v; want %d in %v", name, step, len(all), pieces, len(test.text), test.pieces)
			}
		}
	}
}

func lineNumbers(from, to int) (lines []string) {
	for i := from; i < to; i++ {
		lines = append(lines, fmt.Sprintf("stdout line %04d\n", i))
	}
	return lines
}

func appendLines(l *Log, from, to int) {
	for i := from; i < to; i++ {
		l.Append(Stdout, uint64(i*10), fmt.Appendf(nil, "line %04d\n", i))
	}
}

func TestRotationKeepsTheLastFiles(t *testing.T) {
	t.Parallel()
	l := newLog(t, Config{MaxBytes: 1000, MaxFiles: 3})
	begin(t, l)
	appendLines(l, 0, 200)
	got := read(t, l, everything)
	if len(got) < 20 || len(got) > 60 {
		t.Fatalf("%d entries are kept; three files of about 14 lines are wanted", len(got))
	}
	same(t, "the newest, in order", got, lineNumbers(200-len(got), 200))
	for name, want := range map[string]bool{"": true, ".1": true, ".2": true, ".3": false} {
		st, err := os.Stat(l.config.Path + name)
		if (err == nil) != want {
			t.Errorf("file %q is there: %v, want %t", name, err, want)
		}
		if err == nil && st.Size() > 1100 {
			t.Errorf("file %q has %d bytes, the bound is 1000 and one write", name, st.Size())
		}
	}
	for tail := range len(got) + 5 {
		o := everything
		o.Tail = tail
		same(t, fmt.Sprintf("tail %d", tail), read(t, l, o), got[max(0, len(got)-tail):])
	}
	one := newLog(t, Config{MaxBytes: 100, MaxFiles: 1})
	begin(t, one)
	appendLines(one, 0, 50)
	if left := read(t, one, everything); len(left) == 0 || len(left) > 5 || left[len(left)-1] != "stdout line 0049\n" {
		t.Errorf("a single file keeps %q", left)
	}
}

func TestReadChooses(t *testing.T) {
	t.Parallel()
	l := newLog(t, Config{})
	if got := read(t, l, everything); len(got) != 0 {
		t.Errorf("a log that never was has %q", got)
	}
	text := ""
	for i := range 10 {
		text += fmt.Sprintf("{\"log\":\"%d\\n\",\"stream\":\"%s\",\"time\":\"2026-01-01T00:00:0%d.5Z\"}\n", i, []string{"stdout", "stderr"}[i%2], i)
	}
	if err := os.WriteFile(l.config.Path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	at := func(s string) time.Time {
		v, err := time.Parse(time.RFC3339Nano, "2026-01-01T00:00:0"+s+"Z")
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for name, test := range map[string]struct {
		o    ReadOptions
		want string
	}{
		"all":               {everything, "0123456789"},
		"stdout":            {ReadOptions{Tail: -1, Stdout: true}, "02468"},
		"neither":           {ReadOptions{Tail: -1}, ""},
		"tail of stderr":    {ReadOptions{Tail: 2, Stderr: true}, "79"},
		"tail 0":            {ReadOptions{Tail: 0, Stdout: true, Stderr: true}, ""},
		"since, inclusive":  {ReadOptions{Tail: -1, Stdout: true, Stderr: true, Since: at("7.5")}, "789"},
		"until, inclusive":  {ReadOptions{Tail: -1, Stdout: true, Stderr: true, Until: at("2.5")}, "012"},
		"between":           {ReadOptions{Tail: -1, Stdout: true, Stderr: true, Since: at("2.6"), Until: at("5.4")}, "34"},
		"tail before since": {ReadOptions{Tail: 3, Stdout: true, Stderr: true, Since: at("8.5")}, "89"},
	} {
		var got string
		for _, e := range read(t, l, test.o) {
			_, digit, _ := strings.Cut(strings.TrimSuffix(e, "\n"), " ")
			got += digit
		}
		if got != test.want {
			t.Errorf("%s: got %q, want %q", name, got, test.want)
		}
	}
	stop := errors.New("stop")
	if err := l.Read(t.Context(), everything, func(Entry) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("fn's error came back as %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Read(ctx, everything, func(Entry) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("an ended context gave %v", err)
	}
}

// TestForeignAndTornLines are left out, and do not hide the lines around them.
func TestForeignAndTornLines(t *testing.T) {
	t.Parallel()
	good := func(s string) string {
		return `{"log":"` + s + `\n","stream":"stdout","time":"2026-01-01T00:00:00Z"}` + "\n"
	}
	l := newLog(t, Config{})
	text := good("1") + "not JSON\n" + `{"stream":"stdout"}` + "\n" +
		`{"attrs":{"a":"b"}, "time":"2026-01-01T00:00:00Z", "stream":"stderr", "log":"docker \ud83e\udd89\n"}` + "\n" +
		"\n" + strings.Repeat("y", maxLine+70_000) + "\n" + good("2") + `{"log":"tor`
	if err := os.WriteFile(l.config.Path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	want := []string{"stdout 1\n", "stderr docker 🦉\n", "stdout 2\n"}
	same(t, "with a torn end", read(t, l, everything), want)
	for tail := range 4 {
		o := everything
		o.Tail = tail
		same(t, fmt.Sprintf("tail %d", tail), read(t, l, o), want[3-tail:])
	}
	begin(t, l)
	l.Append(Stdout, 0, []byte("3\n"))
	same(t, "after the next life began", read(t, l, everything), append(want, "stdout 3\n"))
	if text, _ := os.ReadFile(l.config.Path); bytes.Contains(text, []byte(`"tor`)) {
		t.Error("the torn line is still there")
	}
}

// TestResume: a killed daemon's log goes on at the very byte, whatever was written last.
func TestResume(t *testing.T) {
	t.Parallel()
	l := newLog(t, Config{})
	begin(t, l)
	l.Append(Stdout, 0, []byte("one\ntwo\nhal"))
	l.Append(Stderr, 0, []byte("err\n"))
	l.LetGo() // as good as a kill: nothing is written
	f, err := os.OpenFile(l.config.Path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	// Written, but the daemon died before it noted that.
	_, _ = f.WriteString(`{"log":"half\n","stream":"stdout","time":"2026-01-01T00:00:00Z"}` + "\n" + `{"log":"to`)
	_ = f.Close()

	next := newLog(t, Config{Path: l.config.Path})
	stdout, stderr, err := next.Resume()
	if err != nil || stdout != 8 || stderr != 4 {
		t.Fatalf("resumed at %d and %d, %v; want 8 and 4", stdout, stderr, err)
	}
	next.Append(Stdout, 8, []byte("half\nthree\n"))
	want := []string{"stdout one\n", "stdout two\n", "stderr err\n", "stdout half\n", "stdout three\n"}
	same(t, "no line is lost or doubled", read(t, next, everything), want)
	next.LetGo()

	for name, spoil := range map[string]string{"no note": "", "a damaged note": "0123456789012345678901234567"} {
		_ = os.Remove(next.notePath())
		if spoil != "" {
			if err := os.WriteFile(next.notePath(), []byte(spoil), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		again := newLog(t, Config{Path: l.config.Path})
		if stdout, stderr, err := again.Resume(); err != nil || stdout != 0 || stderr != 0 {
			t.Errorf("%s: resumed at %d and %d, %v; want the begin", name, stdout, stderr, err)
		}
		again.LetGo()
	}
}

// TestResumeAfterADeathWhileRotating: the old file was renamed, nothing was noted since.
func TestResumeAfterADeathWhileRotating(t *testing.T) {
	t.Parallel()
	l := newLog(t, Config{})
	begin(t, l)
	l.Append(Stdout, 0, []byte("one\n"))
	l.LetGo()
	if err := os.Rename(l.config.Path, l.name(1)); err != nil {
		t.Fatal(err)
	}
	next := newLog(t, Config{Path: l.config.Path})
	if stdout, _, err := next.Resume(); err != nil || stdout != 4 {
		t.Fatalf("resumed at %d, %v; want 4", stdout, err)
	}
	next.Append(Stdout, 4, []byte("two\n"))
	same(t, "over the rotation", read(t, next, everything), []string{"stdout one\n", "stdout two\n"})
}

func TestFollow(t *testing.T) {
	t.Parallel()
	l := newLog(t, Config{MaxBytes: 2000, MaxFiles: 100})
	begin(t, l)
	appendLines(l, 0, 10)
	const followers = 20
	var all sync.WaitGroup
	results := make([][]string, followers)
	ready := make(chan struct{}, followers)
	for i := range followers {
		all.Go(func() {
			o := everything
			o.Follow = true
			first := true
			if err := l.Read(t.Context(), o, func(e Entry) error {
				if first {
					first = false
					ready <- struct{}{}
				}
				results[i] = append(results[i], fmt.Sprintf("%v %s", e.Stream, e.Data))
				return nil
			}); err != nil {
				t.Errorf("following: %v", err)
			}
		})
	}
	for range followers {
		<-ready
	}
	appendLines(l, 10, 500)
	if err := l.End(); err != nil {
		t.Fatal(err)
	}
	all.Wait()
	for _, got := range results {
		same(t, "a follower over many rotations", got, lineNumbers(0, 500))
	}
}

// TestFollowerThatIsLeftBehind loses what rotation removed, and goes on in order.
func TestFollowerThatIsLeftBehind(t *testing.T) {
	t.Parallel()
	l := newLog(t, Config{MaxBytes: 500, MaxFiles: 2})
	begin(t, l)
	appendLines(l, 0, 1)
	o := everything
	o.Follow = true
	stuck, release := make(chan struct{}), make(chan struct{})
	done := make(chan []string)
	go func() {
		var got []string
		_ = l.Read(t.Context(), o, func(e Entry) error {
			if got == nil {
				close(stuck)
				<-release
			}
			got = append(got, fmt.Sprintf("%v %s", e.Stream, e.Data))
			return nil
		})
		done <- got
	}()
	<-stuck
	appendLines(l, 1, 300)
	_ = l.End()
	close(release)
	got := <-done
	if len(got) < 5 || got[0] != "stdout line 0000\n" || got[len(got)-1] != "stdout line 0299\n" {
		t.Fatalf("got %d entries from %q to %q", len(got), got[0], got[len(got)-1])
	}
	for i := 1; i < len(got); i++ {
		if got[i] <= got[i-1] {
			t.Fatalf("%q comes after %q", got[i], got[i-1])
		}
	}
}

func TestFollowEnds(t *testing.T) {
	t.Parallel()
	l := newLog(t, Config{})
	begin(t, l)
	o := everything
	o.Follow, o.Until = true, time.Now().Add(20*time.Millisecond)
	if err := l.Read(t.Context(), o, func(Entry) error { return nil }); err != nil {
		t.Errorf("following until a time gave %v", err)
	}
	o.Until = time.Time{}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := l.Read(ctx, o, func(Entry) error { return nil }); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("an ended context gave %v", err)
	}
	l.LetGo()
	if err := l.Read(t.Context(), o, func(Entry) error { return nil }); err != nil {
		t.Errorf("following what nobody logs gave %v, want its end", err)
	}
}

// TestManyWritersNoLineTorn: both streams of several logs at once.
func TestManyWritersNoLineTorn(t *testing.T) {
	t.Parallel()
	var all sync.WaitGroup
	var logs []*Log
	for range 10 {
		l := newLog(t, Config{MaxBytes: 50_000, MaxFiles: 1000})
		begin(t, l)
		logs = append(logs, l)
		for s := range 2 {
			all.Go(func() {
				at := uint64(0)
				for i := range 2000 {
					p := fmt.Appendf(nil, "%v says %d\n", Stream(s), i)
					l.Append(Stream(s), at, p)
					at += uint64(len(p))
				}
			})
		}
	}
	all.Wait()
	for _, l := range logs {
		_ = l.End()
		next := [2]int{}
		for _, e := range read(t, l, everything) {
			var s, said string
			var n int
			_, _ = fmt.Sscanf(e, "%s %s says %d", &s, &said, &n)
			i := 0
			if s == "stderr" {
				i = 1
			}
			if s != said || n != next[i] {
				t.Fatalf("%q where %s's %d is next", e, s, next[i])
			}
			next[i]++
		}
		if next != [2]int{2000, 2000} {
			t.Errorf("%v lines of 2000 and 2000 are there", next)
		}
	}
}

// TestUnwritableLog tells once, goes on, and leaves no torn line.
func TestUnwritableLog(t *testing.T) {
	t.Parallel()
	var told []error
	l := newLog(t, Config{OnError: func(err error) { told = append(told, err) }})
	if err := newLog(t, Config{Path: filepath.Join(t.TempDir(), "no", "folder")}).Begin(); err == nil {
		t.Error("a log in no folder began")
	}
	begin(t, l)
	l.Append(Stdout, 0, []byte("one\n"))
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	l.mu.Lock()
	good := l.file
	l.file = full
	l.mu.Unlock()
	for i := range 3 {
		if got := l.Append(Stdout, uint64(4+i), []byte("\n")); got != uint64(5+i) {
			t.Errorf("the writer is held at %d, want %d: a full disk must not stop a container", got, 5+i)
		}
	}
	if len(told) != 1 {
		t.Errorf("told %d times of a full disk, want once: %v", len(told), told)
	}
	l.mu.Lock()
	l.file = good
	l.mu.Unlock()
	_ = full.Close()
	l.Append(Stdout, 7, []byte("two\n"))
	same(t, "when there is room again", read(t, l, everything), []string{"stdout one\n", "stdout two\n"})
}

// FuzzParse: what parse takes, it prints back alike; what it does not, it says.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"log":"a\n","stream":"stdout","time":"2026-01-01T00:00:00.123456789Z"}`))
	f.Add([]byte(`{"log":"\u2028\ufffd\"\\","stream":"stderr","time":"2026-01-01T00:00:00Z"}`))
	f.Add([]byte(`{"stream":"stderr","log":"\ud83e\udd89","time":"2026-01-01T00:00:00+02:00"}`))
	f.Add([]byte(`{"log":"`))
	f.Fuzz(func(t *testing.T, in []byte) {
		e, err := parse(in, nil)
		if err != nil {
			if e.Data != nil {
				t.Errorf("an error with data %q", e.Data)
			}
			return
		}
		if own, ok := parseOwn(in, nil); ok {
			var any line
			if err := json.Unmarshal(in, &any); err != nil || any.Log != string(own.Data) || !any.Time.Equal(own.Time) || any.Stream != own.Stream.String() {
				t.Errorf("%q: read as %q %v %v, encoding/json reads %+v, %v", in, own.Data, own.Stream, own.Time, any, err)
			}
		}
		out := bytes.TrimSuffix(appendEntry(nil, e.Data, e.Stream, appendTime(nil, e.Time)), []byte("\n"))
		again, ok := parseOwn(out, nil)
		if year := e.Time.UTC().Year(); year < 0 || year > 9999 {
			return // such a time has no RFC 3339 form
		}
		if !ok || !bytes.Equal(again.Data, e.Data) || again.Stream != e.Stream || !again.Time.Equal(e.Time) {
			t.Errorf("%q written as %q reads back as %q %v %v", in, out, again.Data, again.Stream, again.Time)
		}
	})
}

// FuzzEncode: whatever a container writes, each line is one of JSON that says it.
func FuzzEncode(f *testing.F) {
	f.Add([]byte("a\x00\xff<\u2028\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		out := appendEntry(nil, in, Stdout, appendTime(nil, time.Unix(1, 2)))
		var l line
		if err := json.Unmarshal(out, &l); err != nil {
			t.Fatalf("%q became %q: %v", in, out, err)
		}
		want := strings.Builder{}
		for _, r := range string(in) { // each bad byte is one U+FFFD
			want.WriteRune(r)
		}
		if l.Log != want.String() {
			t.Errorf("%q became %q", in, l.Log)
		}
	})
}

func FuzzNote(f *testing.F) {
	f.Add(note{size: 5, logged: [2]uint64{1, 2}}.encode())
	f.Fuzz(func(t *testing.T, in []byte) {
		if n, ok := parseNote(in); ok && !bytes.Equal(n.encode(), in) {
			t.Errorf("%x reads as %+v, which is %x", in, n, n.encode())
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	for _, length := range []int{20, 80, 1000, 100_000} {
		b.Run(fmt.Sprintf("lines of %d", length), func(b *testing.B) {
			l := newLog(b, Config{MaxBytes: 10_000_000})
			begin(b, l)
			chunk := bytes.Repeat(append(bytes.Repeat([]byte("x"), length-1), '\n'), 32<<10/length+1)[:32<<10]
			b.SetBytes(int64(len(chunk)))
			at := uint64(0)
			for b.Loop() {
				l.Append(Stdout, at, chunk)
				at += uint64(len(chunk))
			}
		})
	}
}

func BenchmarkRead(b *testing.B) {
	l := newLog(b, Config{MaxBytes: 100 << 20})
	begin(b, l)
	chunk := bytes.Repeat([]byte("a line of a log as they often are, with some eighty bytes in it, more or less..\n"), 400)
	for at := 0; at < 10<<20; at += len(chunk) {
		l.Append(Stdout, uint64(at), chunk)
	}
	b.SetBytes(l.size)
	for b.Loop() {
		_ = l.Read(b.Context(), everything, func(Entry) error { return nil })
	}
}
