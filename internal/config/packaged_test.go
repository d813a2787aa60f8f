// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
)

// TestPackagedFile holds the file that packages install against the settings: each is in there, with a value that
// is taken, and each is in docs/config.md.
func TestPackagedFile(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../packaging/config.toml")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parse(text); err != nil {
		t.Errorf("as installed: %v", err)
	}
	all := regexp.MustCompile(`(?m)^#([a-z_]+ = |\[|")`).ReplaceAll(text, []byte("$1"))
	if _, err := parse(all); err != nil {
		t.Errorf("with all that it offers: %v", err)
	}
	var have map[string]any
	if err := toml.Unmarshal(all, &have); err != nil {
		t.Fatal(err)
	}
	docs, err := os.ReadFile("../../docs/config.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		if _, there := have[key]; !there {
			t.Errorf("packaging/config.toml lacks %s", key)
		}
		if !strings.Contains(string(docs), "`"+key+"`") {
			t.Errorf("docs/config.md lacks %s", key)
		}
	}
}
