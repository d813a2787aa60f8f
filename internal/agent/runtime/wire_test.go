// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// full fills every field of a plan, so that one that wire forgets comes back zero.
func full(v reflect.Value, n *uint64) {
	*n++
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			full(v.Field(i), n)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range 2 {
			full(v.Index(i), n)
		}
	case reflect.Array:
		for i := range v.Len() {
			full(v.Index(i), n)
		}
	case reflect.String:
		v.SetString(strings.Repeat("s", int(*n%7)+1))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int:
		v.SetInt(-int64(*n))
	default:
		v.SetUint(*n % 251)
	}
}

func TestPlansCrossTheWireWhole(t *testing.T) {
	t.Parallel()
	var n uint64
	for _, pair := range [][2]message{
		{&containerPlan{}, &containerPlan{}},
		{&joinContainerPlan{}, &joinContainerPlan{}},
	} {
		full(reflect.ValueOf(pair[0]).Elem(), &n)
		if err := decode(encode(pair[0]), pair[1]); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(pair[0], pair[1]) {
			t.Errorf("sent\n%+v\ngot\n%+v", pair[0], pair[1])
		}
	}
	if err := decode(append(encode(&joinContainerPlan{}), 0), &joinContainerPlan{}); err == nil {
		t.Error("bytes left over are not noticed")
	}
}

func TestErrorsCrossTheWire(t *testing.T) {
	t.Parallel()
	for _, kind := range kinds {
		in := StartError{Kind: kind, Sentence: "doing x", Errno: unix.ENOENT}
		var out StartError
		if err := decode(encode(&in), &out); err != nil || out != in {
			t.Errorf("sent %+v, got %+v, %v", in, out, err)
		}
	}
}

// Whatever arrives, decoding ends, takes no more memory than the bytes are worth, and what it gives prints back alike.
func FuzzPlan(f *testing.F) {
	f.Add([]byte{})
	f.Add(encode(&containerPlan{}))
	f.Add(encode(&containerPlan{Masked: []string{"/proc/kcore"}, Files: []File{{Path: "/etc/hosts", Content: []byte("x")}}}))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	f.Fuzz(func(t *testing.T, b []byte) {
		var p containerPlan
		if decode(b, &p) != nil {
			return
		}
		again := encode(&p)
		var q containerPlan
		if err := decode(again, &q); err != nil || !bytes.Equal(encode(&q), again) {
			t.Errorf("plan %+v does not survive another trip: %+v, %v", p, q, err)
		}
	})
}

func TestMessagesWithDescriptors(t *testing.T) {
	t.Parallel()
	ours, theirs, err := newConn()
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.close()
	body := bytes.Repeat([]byte("body"), 1<<18) // more than a socket's buffer holds
	fds := make([]int, fdBatch+7)               // more than go with one sendmsg
	for i := range fds {
		fds[i] = ours.fd
	}
	sent := make(chan error)
	go func() {
		err := ours.send(body, fds)
		ours.close()
		sent <- err
	}()
	gotBody, gotFDs, err := theirs.receive()
	if err != nil || !bytes.Equal(gotBody, body) || len(gotFDs) != len(fds) {
		t.Errorf("got %d bytes, %d descriptors, %v; want %d and %d", len(gotBody), len(gotFDs), err, len(body), len(fds))
	}
	closeAll(gotFDs)
	if err := <-sent; err != nil {
		t.Error(err)
	}
	if _, _, err := theirs.receive(); err == nil || err.Error() != "EOF" {
		t.Errorf("after the end: got %v, want io.EOF", err)
	}
}

func TestMessagesThatAreBroken(t *testing.T) {
	t.Parallel()
	for name, sent := range map[string]string{
		"cut header":       "\x01\x00",
		"too long":         "\xff\xff\xff\xff\x00\x00\x00\x00",
		"cut body":         "\x05\x00\x00\x00\x00\x00\x00\x00abc",
		"no descriptors":   "\x00\x00\x00\x00\x01\x00\x00\x00\x00",
		"many descriptors": "\x00\x00\x00\x00\xff\xff\xff\xff",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ours, theirs, err := newConn()
			if err != nil {
				t.Fatal(err)
			}
			defer theirs.close()
			if err := ours.write([]byte(sent), nil); err != nil {
				t.Fatal(err)
			}
			ours.close()
			if _, _, err := theirs.receive(); err == nil || err.Error() == "EOF" {
				t.Errorf("got %v, want an error", err)
			}
		})
	}
}
