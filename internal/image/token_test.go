// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package image_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/micropod/micropod/internal/image"
	"github.com/micropod/micropod/internal/image/imagetest"
)

// tokenGuard stands before a registry and lets in who has a token from its /token
// (distribution specification, token authentication). Each token is good for uses requests.
type tokenGuard struct {
	*httptest.Server
	uses int

	mu     sync.Mutex
	issued int
	left   map[string]int
	scopes map[string]bool
}

func startTokenGuard(t *testing.T, reg *imagetest.Registry, uses int) *tokenGuard {
	t.Helper()
	to, err := url.Parse(reg.URL)
	if err != nil {
		t.Fatal(err)
	}
	behind := httputil.NewSingleHostReverseProxy(to)
	g := &tokenGuard{uses: uses, left: map[string]int{}, scopes: map[string]bool{}}
	g.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/token" {
			g.issue(w, r)
			return
		}
		if !g.spend(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")) {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="guard"`, g.URL))
			http.Error(w, `{"errors":[{"code":"UNAUTHORIZED"}]}`, http.StatusUnauthorized)
			return
		}
		r.Header.Del("Authorization")
		behind.ServeHTTP(w, r)
	}))
	t.Cleanup(g.Close)
	return g
}

func (g *tokenGuard) issue(w http.ResponseWriter, r *http.Request) {
	user, password, basic := r.BasicAuth()
	refresh := r.PostFormValue("refresh_token")
	if (!basic || user != "ann" || password != "secret") && refresh != "identity-of-ann" {
		http.Error(w, "who?", http.StatusUnauthorized)
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.issued++
	token := fmt.Sprintf("token-%d", g.issued)
	g.left[token] = g.uses
	g.scopes[r.FormValue("scope")] = true
	fmt.Fprintf(w, `{"token":%q,"access_token":%q,"expires_in":300}`, token, token)
}

func (g *tokenGuard) spend(token string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.left[token]--
	return g.left[token] >= 0
}

// TestPullByToken: a token is fetched with the credentials, for pulling alone, and again
// when it expires in the middle of a pull.
func TestPullByToken(t *testing.T) {
	t.Parallel()
	reg := imagetest.StartRegistry(t, imagetest.RegistryOptions{})
	if _, err := reg.Push(small("token").Build(), "team/token", "v1"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		uses int
		auth *image.Auth
		want error
	}{
		{"password", 1000, &image.Auth{Username: "ann", Password: "secret"}, nil},
		{"expires", 2, &image.Auth{Username: "ann", Password: "secret"}, nil},
		{"identity token", 1000, &image.Auth{IdentityToken: "identity-of-ann"}, nil},
		{"wrong password", 1000, &image.Auth{Username: "ann", Password: "wrong"}, image.ErrUnauthorized},
		{"none", 1000, &image.Auth{}, image.ErrUnauthorized},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			g := startTokenGuard(t, reg, c.uses)
			s := open(t, image.Config{Keychain: keychain{}})
			_, err := s.Pull(ctxFor(t), strings.TrimPrefix(g.URL, "http://")+"/team/token:v1", image.PullOptions{Auth: c.auth})
			if !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			if c.want == nil && (len(g.scopes) != 1 || !g.scopes["repository:team/token:pull"]) {
				t.Errorf("asked for %v, want to pull this repository alone", g.scopes)
			}
			if c.uses == 2 && g.issued < 2 {
				t.Errorf("%d tokens were issued, want more: each is good for two requests", g.issued)
			}
		})
	}
}
