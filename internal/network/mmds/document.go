// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package mmds

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
)

const (
	// MaxBytes bounds a document, written without spaces: Firecracker's default (--mmds-size-limit).
	MaxBytes = 51200
	// maxDepth bounds how deep objects and lists lie in each other.
	maxDepth = 64
)

// DocumentError says why a text cannot be a machine's metadata.
type DocumentError struct{ Reason string }

func (e *DocumentError) Error() string { return "metadata: " + e.Reason }

// Remediation tells what to do.
func (e *DocumentError) Remediation() string {
	return fmt.Sprintf("give one JSON object of at most %d bytes", MaxBytes)
}

// Parse reads a document, one JSON object, and gives it without spaces and with its keys in order. Errors: *DocumentError.
func Parse(text []byte) ([]byte, error) {
	v, err := decode(text)
	if err != nil {
		return nil, err
	}
	if _, object := v.(map[string]any); !object {
		return nil, &DocumentError{"it is no JSON object"}
	}
	return encode(v)
}

// Merge changes a document as a patch says (RFC 7396): what the patch names is replaced, null takes away. The document is
// one that Parse gave. Errors: *DocumentError.
func Merge(document, patch []byte) ([]byte, error) {
	was, err := decode(document)
	if err != nil {
		return nil, err
	}
	by, err := decode(patch)
	if err != nil {
		return nil, err
	}
	if _, object := by.(map[string]any); !object {
		return nil, &DocumentError{"the change is no JSON object"}
	}
	return encode(merge(was, by))
}

func merge(target, patch any) any {
	changes, object := patch.(map[string]any)
	if !object {
		return patch
	}
	next, object := target.(map[string]any)
	if !object {
		next = map[string]any{}
	}
	for k, v := range changes {
		if v == nil {
			delete(next, k)
			continue
		}
		next[k] = merge(next[k], v)
	}
	return next
}

func decode(text []byte) (any, error) {
	if len(text) > 4*MaxBytes { // spaces are not counted, yet read
		return nil, &DocumentError{fmt.Sprintf("%d bytes are more than %d", len(text), MaxBytes)}
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber() // numbers stay as they are written
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, &DocumentError{"it is no JSON: " + err.Error()}
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, &DocumentError{"more follows the JSON value"}
	}
	if depth(v) > maxDepth {
		return nil, &DocumentError{fmt.Sprintf("it is deeper than %d", maxDepth)}
	}
	return v, nil
}

func depth(v any) (deepest int) {
	switch v := v.(type) {
	case map[string]any:
		for _, x := range v {
			deepest = max(deepest, depth(x))
		}
	case []any:
		for _, x := range v {
			deepest = max(deepest, depth(x))
		}
	default:
		return 0
	}
	return deepest + 1
}

func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, &DocumentError{err.Error()}
	}
	text := bytes.TrimSuffix(b.Bytes(), []byte("\n"))
	if len(text) > MaxBytes {
		return nil, &DocumentError{fmt.Sprintf("%d bytes are more than %d", len(text), MaxBytes)}
	}
	return text, nil
}

var (
	//lint:ignore ST1005 guests read these words, which are Firecracker's
	errNotFound = errors.New("Resource not found")
	//lint:ignore ST1005 as above
	errUnsupported = errors.New("Cannot retrieve value. The value has an unsupported type.")
)

// find gives what lies at a path (RFC 6901, a slash at its end aside).
func find(document any, path string) (any, error) {
	path = strings.TrimSuffix(path, "/")
	if path == "" {
		return document, nil
	}
	v := document
	for _, part := range strings.Split(strings.TrimPrefix(path, "/"), "/") {
		part = strings.NewReplacer("~1", "/", "~0", "~").Replace(part)
		switch in := v.(type) {
		case map[string]any:
			next, there := in[part]
			if !there {
				return nil, errNotFound
			}
			v = next
		case []any:
			i, err := strconv.Atoi(part)
			if err != nil || i < 0 || i >= len(in) || strconv.Itoa(i) != part {
				return nil, errNotFound
			}
			v = in[i]
		default:
			return nil, errNotFound
		}
	}
	return v, nil
}

// list is the text of EC2's metadata service: a string as it is, of an object its keys, those of objects with a slash.
func list(v any) (string, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case map[string]any:
		keys := slices.Sorted(maps.Keys(v))
		for i, k := range keys {
			if _, object := v[k].(map[string]any); object {
				keys[i] += "/"
			}
		}
		return strings.Join(keys, "\n"), nil
	}
	return "", errUnsupported
}
