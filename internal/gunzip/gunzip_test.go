// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package gunzip

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"testing/iotest"
)

// pack compresses with a level of compress/gzip, or in fixed codes and stored blocks.
func pack(t testing.TB, data []byte, level int) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, level)
	if err != nil {
		t.Fatal(err)
	}
	w.Name, w.Comment, w.Extra = "name", "a comment", []byte("extra")
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func unpack(packed io.Reader) ([]byte, error) {
	r, err := NewReader(packed)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// samples are data that lead to all kinds of blocks and codes.
func samples(t testing.TB) map[string][]byte {
	random := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 300_000)
	for i := range noise {
		noise[i] = byte(random.Uint32())
	}
	skewed := make([]byte, 1_000_000) // codes of up to 15 bits
	for i := range skewed {
		skewed[i] = byte(random.ExpFloat64() * 12)
	}
	self, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{
		"nothing": nil, "one": {'x'}, "short": []byte("a short text, a short text"),
		"zeroes": make([]byte, 1<<20), "noise": noise, "skewed": skewed,
		"periods": bytes.Repeat([]byte("1234567"), 50_000), "program": self[:min(len(self), 4<<20)],
		"far": append(append(bytes.Clone(noise[:32768]), noise[:32768]...), noise[:40000]...),
	}
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	for name, data := range samples(t) {
		for _, level := range []int{gzip.HuffmanOnly, gzip.NoCompression, gzip.BestSpeed, gzip.BestCompression} {
			packed := pack(t, data, level)
			for how, r := range map[string]io.Reader{
				"whole": bytes.NewReader(packed), "halves": iotest.HalfReader(bytes.NewReader(packed)),
				"data with the end": iotest.DataErrReader(bytes.NewReader(packed)),
			} {
				if got, err := unpack(r); err != nil || !bytes.Equal(got, data) {
					t.Errorf("%s, level %d, %s: %d bytes, %v; want %d bytes", name, level, how, len(got), err, len(data))
				}
			}
		}
	}
}

func TestMembers(t *testing.T) {
	t.Parallel()
	var packed, want []byte
	for i := range 300 {
		text := []byte(strings.Repeat(fmt.Sprint("member ", i), i))
		packed, want = append(packed, pack(t, text, 1+i%9)...), append(want, text...)
	}
	got, err := unpack(iotest.OneByteReader(bytes.NewReader(packed)))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, %v; want %d", len(got), err, len(want))
	}
}

// Every cut is found, whatever was given before it.
func TestCut(t *testing.T) {
	t.Parallel()
	packed := pack(t, samples(t)["short"], 9)
	packed = append(packed, pack(t, bytes.Repeat([]byte("second "), 20), 9)...)
	first := len(pack(t, samples(t)["short"], 9))
	for n := range packed {
		got, err := unpack(bytes.NewReader(packed[:n]))
		if n == 0 || n == first {
			if n == 0 && err == nil {
				t.Error("an empty stream was taken")
			}
			continue
		}
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut after %d of %d bytes: %q, %v", n, len(packed), got, err)
		}
	}
}

func TestCorrupt(t *testing.T) {
	t.Parallel()
	good := pack(t, []byte("a text"), 9)
	sumWrong, sizeWrong := bytes.Clone(good), bytes.Clone(good)
	sumWrong[len(good)-8]++
	sizeWrong[len(good)-4]++
	header := "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
	for name, b := range map[string]string{
		"no gzip": "this is no gzip stream", "another method": "\x1f\x8b\x07" + header[3:],
		"checksum": string(sumWrong), "size": string(sizeWrong), "more behind": string(good) + "more than ten bytes",
		"block type 3": header + "\x07", "stored length": header + "\x01\x05\x00\x00\x00hello",
		"too many literal codes": header + "\xfd\x00", "incomplete codes": header + "\x05\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
		"endless name":           header[:3] + "\x08" + header[4:] + strings.Repeat("n", 600),
		"header checksum":        header[:3] + "\x02" + header[4:] + "\x00\x00",
		"match before the start": header + "\x03\x02\x00\x00\x00\x00\x00",
	} {
		if got, err := unpack(strings.NewReader(b)); !errors.Is(err, ErrCorrupt) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	broken := errors.New("broken")
	if _, err := unpack(io.MultiReader(bytes.NewReader(good[:len(good)-9]), iotest.ErrReader(broken))); !errors.Is(err, broken) {
		t.Errorf("got %v, want the reader's error", err)
	}
}

// FuzzGunzip compares with compress/gzip: the same bytes, or both refuse.
func FuzzGunzip(f *testing.F) {
	for _, level := range []int{gzip.HuffmanOnly, gzip.NoCompression, 1, 6} {
		f.Add(pack(f, []byte(strings.Repeat("what is said here is said again, ", 40)), level))
	}
	var fixed bytes.Buffer
	w, _ := flate.NewWriter(&fixed, 9)
	_, _ = w.Write([]byte("aaaaaaaaaa"))
	_ = w.Close()
	f.Add(append([]byte("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"), fixed.Bytes()...))
	f.Fuzz(func(t *testing.T, packed []byte) {
		const most = 4 << 20
		var want []byte
		judge, wantErr := gzip.NewReader(bytes.NewReader(packed))
		if wantErr == nil {
			want, wantErr = io.ReadAll(io.LimitReader(judge, most))
		}
		if len(want) == most {
			return
		}
		got, err := unpack(bytes.NewReader(packed))
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("%v, want %v", err, wantErr)
		}
		if err == nil && !bytes.Equal(got, want) {
			t.Fatalf("%d bytes differ from the %d of compress/gzip", len(got), len(want))
		}
		// What is given before an error is never wrong, though it may be less.
		if err != nil && !bytes.HasPrefix(want, got) {
			t.Fatalf("before %v it gave %d bytes that compress/gzip did not give", err, len(got))
		}
	})
}

// BenchmarkGunzip has this test's own program unpacked.
func BenchmarkGunzip(b *testing.B) {
	data := samples(b)["program"]
	packed := pack(b, data, 6)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		r, err := NewReader(bytes.NewReader(packed))
		if err != nil {
			b.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, r); err != nil || n != int64(len(data)) {
			b.Fatal(n, err)
		}
	}
}
