// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/docker/go-units"
)

// settings is the file as written: docs/config.md describes each.
type settings struct {
	DataDir            string              `toml:"data_dir"`
	RunDir             string              `toml:"run_dir"`
	Host               string              `toml:"host"`
	Kernel             string              `toml:"kernel"`
	QEMU               string              `toml:"qemu"`
	Engine             string              `toml:"engine"`
	Firecracker        string              `toml:"firecracker"`
	Jailer             string              `toml:"jailer"`
	Unjailed           bool                `toml:"unjailed"`
	Agent              string              `toml:"agent"`
	InsecureRegistries []string            `toml:"insecure_registries"`
	Mirrors            map[string][]string `toml:"mirrors"`
	ImageLimits        limitSettings       `toml:"image_limits"`
	DefaultMemory      size                `toml:"default_memory"`
	DefaultVCPUs       int                 `toml:"default_vcpus"`
	DefaultScratch     size                `toml:"default_scratch"`
	DefaultNetwork     string              `toml:"default_network"`
	UIDFirst           int                 `toml:"uid_first"`
	UIDCount           int                 `toml:"uid_count"`
	LogLevel           string              `toml:"log_level"`
	OTLPEndpoint       string              `toml:"otlp_endpoint"`
	SocketGroup        string              `toml:"socket_group"`
	PoolMin            int                 `toml:"pool_min"`
	PoolMax            int                 `toml:"pool_max"`
	PoolMemory         size                `toml:"pool_memory"`
}

// size is a number of bytes with Docker's suffixes: "512m", "10g".
type size string

func (s size) orElse(name string, fallback int64) attempt[int64] {
	if s == "" {
		return attempt[int64]{v: fallback}
	}
	n, err := units.RAMInBytes(string(s))
	if err != nil {
		return attempt[int64]{err: fmt.Errorf("%s is %q, want a size such as 512m or 10g", name, string(s))}
	}
	return attempt[int64]{v: n}
}

// keys are all settings a file may hold.
var keys = []string{
	"data_dir", "run_dir", "host", "kernel", "qemu", "engine", "firecracker", "jailer", "unjailed", "agent", "insecure_registries", "mirrors", "image_limits",
	"default_memory", "default_vcpus", "default_scratch", "default_network", "uid_first", "uid_count", "log_level", "otlp_endpoint", "socket_group",
	"pool_min", "pool_max", "pool_memory",
}

// parse reads a file's text. A key that is not known is an error that names the nearest one.
func parse(raw []byte) (settings, error) {
	var s settings
	md, err := toml.Decode(string(raw), &s)
	if err != nil {
		var p toml.ParseError
		if errors.As(err, &p) {
			return settings{}, fmt.Errorf("line %d: %s", p.Position.Line, p.Message)
		}
		return settings{}, err
	}
	var errs []error
	for _, k := range md.Undecoded() {
		errs = append(errs, unknownKey(k.String()))
	}
	return s, errors.Join(errs...)
}

func unknownKey(key string) error {
	best, distance := "", 4 // further apart is no misspelling
	for _, k := range keys {
		if d := editDistance(strings.ToLower(key), k); d < distance {
			best, distance = k, d
		}
	}
	if best == "" {
		return fmt.Errorf("unknown setting %q; known are %s", key, strings.Join(keys, ", "))
	}
	return fmt.Errorf("unknown setting %q: did you mean %q?", key, best)
}

// editDistance counts the single letters to change, add or drop between a and b (Levenshtein).
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(diagonal+cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
