// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// registryOf is the address of a registry that lets ann in with her password.
func registryOf(t *testing.T, password string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, given, _ := r.BasicAuth(); user != "ann" || given != password {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// TestTerminalLogin: user and password are asked for, the password is not shown, and the
// terminal is as before however it ends.
func TestTerminalLogin(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		args   []string
		answer func(*terminal)
		code   int
		kept   bool
	}{
		"right": {nil, func(x *terminal) {
			x.answer("Username: ", "ann\r")
			x.answer("Password: ", "secret\r")
			x.see("Login Succeeded")
		}, 0, true},
		"user given": {[]string{"-u", "ann"}, func(x *terminal) { x.answer("Password: ", "secret\r"); x.see("Login Succeeded") }, 0, true},
		"wrong":      {[]string{"-u", "ann"}, func(x *terminal) { x.answer("Password: ", "secrets\r"); x.see("does not take this user and password") }, 1, false},
		"empty": {nil, func(x *terminal) {
			x.answer("Username: ", "\r")
			x.answer("Password: ", "secret\r")
			x.see("cannot be empty")
		}, 1, false},
		"interrupted": {[]string{"-u", "ann"}, func(x *terminal) { x.answer("Password: ", "sec\x03") }, -1, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			folder := t.TempDir()
			w.env = append(w.env, "DOCKER_CONFIG="+folder, "HOME="+folder)
			address := registryOf(t, "secret")
			x := w.terminal(append(append([]string{"login"}, c.args...), address)...)
			c.answer(x)
			x.ends(c.code)
			x.mu.Lock()
			defer x.mu.Unlock()
			if strings.Contains(x.shown.String(), "sec") {
				t.Errorf("the password was shown:\n%s", x.shown.String())
			}
			config, _ := os.ReadFile(filepath.Join(folder, "config.json"))
			if strings.Contains(string(config), address) != c.kept {
				t.Errorf("credentials kept: %v, want %v: %s", !c.kept, c.kept, config)
			}
		})
	}
}

// answer waits for a question.
func (x *terminal) answer(question, text string) {
	x.t.Helper()
	x.see(question)
	x.write(text)
}

// TestTerminalPrune: nothing is removed before a yes.
func TestTerminalPrune(t *testing.T) {
	t.Parallel()
	for answer, pruned := range map[string]int{"y\r": 1, "YES\r": 1, "n\r": 0, "\r": 0, "yesterday\r": 0, "\x04": 0} {
		t.Run(strings.TrimSpace(answer), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			x := w.terminal("image", "prune", "-a")
			x.answer("are you sure? [y/N]", answer)
			x.ends(0)
			if got := w.calls("Prune"); got != pruned {
				t.Errorf("%d calls of Prune after %q, want %d", got, answer, pruned)
			}
		})
	}
}
