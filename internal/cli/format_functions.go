// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strings"
	"text/template"
	"time"

	"github.com/docker/go-units"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// fieldPattern finds plain fields in a template.
var fieldPattern = regexp.MustCompile(`\{\{-?\s*\.?(?:[a-z]+ \.)?\.?([A-Za-z]+)[^}]*\}\}`)

// templateFunctions are those of docker's --format.
var templateFunctions = template.FuncMap{
	"json": func(v any) (string, error) {
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		err := e.Encode(v)
		return strings.TrimRight(b.String(), "\n"), err
	},
	"split": strings.Split,
	"join":  func(list []string, sep string) string { return strings.Join(list, sep) },
	"title": func(s string) string {
		if s == "" {
			return s
		}
		return strings.ToUpper(s[:1]) + s[1:]
	},
	"lower":    strings.ToLower,
	"upper":    strings.ToUpper,
	"truncate": truncate,
	"pad": func(s string, before, after int) string {
		return strings.Repeat(" ", max(0, min(before, 256))) + s + strings.Repeat(" ", max(0, min(after, 256)))
	},
}

// truncate shortens s to n runes at most.
func truncate(s string, n int) string {
	r := []rune(s)
	if n < 0 || len(r) <= n {
		return s
	}
	return string(r[:n])
}

// ellipsis shortens s for a table's cell.
func ellipsis(s string, n int) string {
	if len([]rune(s)) <= n {
		return s
	}
	return truncate(s, n-1) + "…"
}

// shortID is an id as tables show it, without its algorithm.
func shortID(id string) string {
	_, hex, found := strings.Cut(id, ":")
	if !found {
		hex = id
	}
	return truncate(hex, 12)
}

// instant is a time as JSON shows it: RFC 3339, UTC; empty when there was none.
func instant(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return t.AsTime().UTC().Format(time.RFC3339Nano)
}

// ago tells how long ago something was, in words. An image may not know its time.
func ago(t *timestamppb.Timestamp) string {
	if t == nil {
		return "N/A"
	}
	return units.HumanDuration(time.Since(t.AsTime())) + " ago"
}

// bytesSize shows bytes as docker's lists do, in decimal units.
func bytesSize(n int64) string { return units.HumanSizeWithPrecision(float64(n), 3) }
