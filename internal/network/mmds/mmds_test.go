// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package mmds

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const sample = `{"latest":{"meta-data":{"ami-id":"ami-1","tags":["a","b"],"n":12345678901234567890,"a/b":"slash","t~":"tilde"},"user-data":"#!/bin/sh"},"name":"x"}`

// serve gives the service of a document, its address and its file.
func serve(t *testing.T, document string) (string, *os.File) {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "document"))
	if err != nil {
		t.Fatal(err)
	}
	if err := Write(file, []byte(document)); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := Serve(ctx, l, file); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); running.Wait(); file.Close() })
	return "http://" + l.Addr().String(), file
}

// ask gives status and text; headers are NAME, VALUE, ...
func ask(t *testing.T, method, url string, headers ...string) (int, string, http.Header) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	transport := &http.Transport{DisableKeepAlives: true}
	a, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	text, err := io.ReadAll(a.Body)
	if err != nil {
		t.Fatal(err)
	}
	return a.StatusCode, string(text), a.Header
}

func token(t *testing.T, url string) string {
	t.Helper()
	code, text, _ := ask(t, "PUT", url+tokenPath, "X-metadata-token-ttl-seconds", "21600")
	if code != 200 || text == "" {
		t.Fatalf("a token: %d %q", code, text)
	}
	return text
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	url, _ := serve(t, sample)
	key := token(t, url)
	for _, test := range []struct {
		path, accept string
		code         int
		want         string
	}{
		{"/", "", 200, "latest/\nname"},
		{"/latest", "", 200, "meta-data/\nuser-data"},
		{"//latest//meta-data/", "*/*", 200, "a/b\nami-id\nn\ntags\nt~"},
		{"/latest/meta-data/ami-id", "text/plain", 200, "ami-1"},
		{"/latest/meta-data/ami-id/", "", 200, "ami-1"},
		{"/latest/meta-data/a~1b", "", 200, "slash"},
		{"/latest/meta-data/t~0", "", 200, "tilde"},
		{"/latest/meta-data/n", "", 501, "unsupported type"},
		{"/latest/meta-data/tags", "", 501, "unsupported type"},
		{"/latest/meta-data/tags/1", "", 200, "b"},
		{"/latest/meta-data/tags/01", "", 404, "Resource not found: /latest/meta-data/tags/01."},
		{"/latest/meta-data/tags/2", "", 404, "Resource not found"},
		{"/latest/meta-data/tags/x", "", 404, "Resource not found"},
		{"/latest/meta-data/ami-id/x", "", 404, "Resource not found"},
		{"/nothing", "application/json", 404, "Resource not found"},
		{"/latest/meta-data/n", "application/json", 200, "12345678901234567890"},
		{"/latest/meta-data/tags", "application/json", 200, `["a","b"]`},
		{"/name", "application/json; charset=utf-8", 200, `"x"`},
		{"/", "application/json", 200, `{"latest":{"meta-data":{"a/b":"slash","ami-id":"ami-1","n":12345678901234567890,"tags":["a","b"],"t~":"tilde"},"user-data":"#!/bin/sh"},"name":"x"}`},
	} {
		code, text, headers := ask(t, "GET", url+test.path, "Accept", test.accept, "X-Metadata-Token", key)
		if code != test.code || !strings.Contains(text, test.want) || code == 200 && text != test.want {
			t.Errorf("GET %s (%s): %d %q, want %d %q", test.path, test.accept, code, text, test.code, test.want)
		}
		json := code == 200 && strings.HasPrefix(test.accept, "application/json")
		if kind := headers.Get("Content-Type"); json != (kind == "application/json") {
			t.Errorf("GET %s (%s) is %s", test.path, test.accept, kind)
		}
	}
}

func TestTokens(t *testing.T) {
	t.Parallel()
	url, _ := serve(t, sample)
	const ttl, key = "X-metadata-token-ttl-seconds", "X-metadata-token"
	for _, test := range []struct {
		method, path string
		headers      []string
		code         int
		want         string
	}{
		{"GET", "/name", nil, 401, "No MMDS token provided"},
		{"GET", "/name", []string{key, "x"}, 401, "not valid"},
		{"GET", "/name", []string{key, newMint().token(time.Now().Add(time.Hour))}, 401, "not valid"},
		{"GET", "/name", []string{"X-aws-ec2-metadata-token", token(t, url)}, 200, "x"},
		{"PUT", tokenPath, nil, 400, "time to live value not found"},
		{"PUT", tokenPath, []string{ttl, "soon"}, 400, "Invalid value"},
		{"PUT", tokenPath, []string{ttl, "0"}, 400, "between 1 and 21600"},
		{"PUT", tokenPath, []string{ttl, "21601"}, 400, "between 1 and 21600"},
		{"PUT", tokenPath, []string{ttl, "-1"}, 400, "Invalid value"},
		{"PUT", tokenPath, []string{ttl, "60", "X-Forwarded-For", "1.2.3.4"}, 400, "X-Forwarded-For"},
		{"PUT", "/name", []string{ttl, "60"}, 404, "Resource not found"},
		{"PUT", "//latest/api//token", []string{ttl, "1"}, 200, ""},
		{"PUT", tokenPath, []string{"X-aws-ec2-metadata-token-ttl-seconds", "60"}, 200, ""},
		{"POST", tokenPath, nil, 405, "Not allowed"},
		{"DELETE", "/name", []string{key, token(t, url)}, 405, "Not allowed"},
	} {
		code, text, headers := ask(t, test.method, url+test.path, test.headers...)
		if code != test.code || !strings.Contains(text, test.want) {
			t.Errorf("%s %s %q: %d %q, want %d %q", test.method, test.path, test.headers, code, text, test.code, test.want)
		}
		if code == 405 && headers.Get("Allow") != "GET, PUT" {
			t.Errorf("allowed are %q", headers["Allow"])
		}
	}
}

func TestTokensEnd(t *testing.T) {
	t.Parallel()
	m, now := newMint(), time.Now()
	one := m.token(now.Add(time.Minute))
	if !m.valid(one, now) || m.valid(one, now.Add(time.Minute)) || m.valid(one[4:], now) || m.valid("B"+one[1:], now) {
		t.Error("a token is not valid exactly until its end")
	}
}

// A document that changes is seen by the next question, whole: never a part of it.
func TestWrite(t *testing.T) {
	t.Parallel()
	url, file := serve(t, `{"v":"0"}`)
	key := token(t, url)
	again, err := os.OpenFile(file.Name(), os.O_RDWR, 0) // as the daemon has it
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	var writing sync.WaitGroup
	writing.Go(func() {
		for i := range 200 {
			if err := Write(again, fmt.Appendf(nil, `{"v":%q}`, strings.Repeat("x", i))); err != nil {
				t.Error(err)
			}
		}
	})
	for range 50 {
		if code, text, _ := ask(t, "GET", url+"/v", "X-Metadata-Token", key); code != 200 || strings.Trim(text, "x0") != "" {
			t.Fatalf("%d %q", code, text)
		}
	}
	writing.Wait()
	if err := again.Truncate(3); err != nil { // a writer died
		t.Fatal(err)
	}
	if code, _, _ := ask(t, "GET", url+"/v", "X-Metadata-Token", key); code != 503 {
		t.Errorf("what is no document is answered with %d", code)
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`{"b": 1, "a": {"<": null}}`: `{"a":{"<":null},"b":1}`,
		` {} `:                       `{}`,
		`{"a":1e400}`:                `{"a":1e400}`,
		``:                           "no JSON",
		`[]`:                         "no JSON object",
		`"x"`:                        "no JSON object",
		`{"a":1}{`:                   "more follows",
		`{"a":1`:                     "no JSON",
		`{"a":` + strings.Repeat("[", 80) + strings.Repeat("]", 80) + `}`: "deeper",
		`{"a":"` + strings.Repeat("x", MaxBytes) + `"}`:                   "more than 51200",
		strings.Repeat(" ", 5*MaxBytes):                                   "more than 51200",
	} {
		got, err := Parse([]byte(text))
		var bad *DocumentError
		if err != nil && (!errors.As(err, &bad) || !strings.Contains(err.Error(), want) || bad.Remediation() == "") || err == nil && string(got) != want {
			t.Errorf("%.60q: %s, %v, want %s", text, got, err, want)
		}
	}
}

// The examples of RFC 7396, appendix A, that are of objects.
func TestMerge(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ document, patch, want string }{
		{`{"a":"b"}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"b"}`, `{"b":"c"}`, `{"a":"b","b":"c"}`},
		{`{"a":"b"}`, `{"a":null}`, `{}`},
		{`{"a":"b","b":"c"}`, `{"a":null}`, `{"b":"c"}`},
		{`{"a":["b"]}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"c"}`, `{"a":["b"]}`, `{"a":["b"]}`},
		{`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`, `{"a":{"b":"d"}}`},
		{`{"a":[{"b":"c"}]}`, `{"a":[1]}`, `{"a":[1]}`},
		{`{"e":null}`, `{"a":1}`, `{"a":1,"e":null}`},
		{`{}`, `{"a":{"bb":{"ccc":null}}}`, `{"a":{"bb":{}}}`},
		{`{}`, `["c"]`, "no JSON object"},
		{`{}`, `{`, "no JSON"},
		{`x`, `{}`, "no JSON"},
		{`{"a":"` + strings.Repeat("x", 40000) + `"}`, `{"b":"` + strings.Repeat("x", 40000) + `"}`, "more than 51200"},
	} {
		got, err := Merge([]byte(test.document), []byte(test.patch))
		if err != nil && !strings.Contains(err.Error(), test.want) || err == nil && string(got) != test.want {
			t.Errorf("%.40s and %.40s: %s, %v, want %s", test.document, test.patch, got, err, test.want)
		}
	}
}

func TestMainRefuses(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{nil, {"label", "3"}, {"label", "x", "4"}, {"label", "65000", "65001"}} {
		if err := Main(t.Context(), args); err == nil {
			t.Errorf("%q is served", args)
		}
	}
}

// FuzzParse: what is taken is in bounds, in its plain form, and merging it with itself gives it again, without nulls.
func FuzzParse(f *testing.F) {
	f.Add([]byte(sample))
	f.Add([]byte(`{"a":{"b":null,"<é":[1.50,{}]}}`))
	f.Add([]byte(`{"a":1,"a":2}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := Parse(text)
		if err != nil {
			return
		}
		again, err := Parse(d)
		if err != nil || !bytes.Equal(again, d) || len(d) > MaxBytes {
			t.Errorf("%q is %q, again %q, %v", text, d, again, err)
		}
		if _, err := Merge(d, d); err != nil {
			t.Error(err)
		}
	})
}
