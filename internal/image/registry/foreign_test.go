// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestForeignLayer: what the registry does not have comes from where the descriptor says.
func TestForeignLayer(t *testing.T) {
	t.Parallel()
	body := []byte("a layer with a licence")
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/layer" || r.Header.Get("Authorization") != "" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.Write(body)
	}))
	t.Cleanup(elsewhere.Close)
	r, _ := server(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) })
	for _, c := range []struct {
		urls []string
		want error
	}{
		{nil, ErrNotFound},
		{[]string{elsewhere.URL + "/layer"}, nil},
		{[]string{elsewhere.URL + "/other", elsewhere.URL + "/layer"}, nil},
		{[]string{elsewhere.URL + "/other"}, ErrNotFound},
		{[]string{"ftp://example.org/layer"}, ErrCorrupt},
		{[]string{"http://user:pw@example.org/layer"}, ErrCorrupt},
		{[]string{"http://registry.invalid/layer"}, ErrInsecure},
		{[]string{"::"}, ErrCorrupt},
	} {
		var sink buffer
		err := r.Blob(context.Background(), ocispec.Descriptor{Digest: digest.FromBytes(body), Size: int64(len(body)), URLs: c.urls}, &sink, nil)
		if !errors.Is(err, c.want) || err == nil && sink.String() != string(body) {
			t.Errorf("from %q: got %q, %v; want %v", c.urls, sink.String(), err, c.want)
		}
	}
}

// TestForeignLayerInside: a public registry's image does not reach into the private network.
func TestForeignLayerInside(t *testing.T) {
	t.Parallel()
	client, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	named, err := reference.ParseNormalizedNamed("registry.example.org/app")
	if err != nil {
		t.Fatal(err)
	}
	r := client.Repository(named, nil)
	for _, inside := range []string{"http://169.254.169.254/latest", "http://localhost/x", "https://10.0.0.1/x", "http://[::1]:80/x"} {
		if _, err := r.foreignURL(inside); err == nil || !strings.Contains(err.Error(), "private") {
			t.Errorf("%s: got %v, want a refusal", inside, err)
		}
	}
	if _, err := r.foreignURL("https://cdn.example.net/x"); err != nil {
		t.Error(err)
	}
}
