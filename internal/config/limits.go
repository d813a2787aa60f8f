// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"time"
)

// ImageLimits bound what making an image's root file system may take: see rootfs.Limits.
// Zero means its default.
type ImageLimits struct {
	Bytes, Ratio  int64 // uncompressed, and for one compressed byte
	Entries       int
	Names, Memory int64 // bytes
	Time          time.Duration
}

// limitSettings is the table image_limits of the file.
type limitSettings struct {
	Bytes   size   `toml:"bytes"`
	Ratio   int64  `toml:"ratio"`
	Entries int    `toml:"entries"`
	Names   size   `toml:"names"`
	Memory  size   `toml:"memory"`
	Time    string `toml:"time"`
}

func (l limitSettings) limits() attempt[ImageLimits] {
	var errs []error
	out := ImageLimits{
		Bytes:   keep(&errs, l.Bytes.orElse("image_limits.bytes", 0)),
		Ratio:   l.Ratio,
		Entries: l.Entries,
		Names:   keep(&errs, l.Names.orElse("image_limits.names", 0)),
		Memory:  keep(&errs, l.Memory.orElse("image_limits.memory", 0)),
	}
	if l.Time != "" {
		var err error
		if out.Time, err = time.ParseDuration(l.Time); err != nil {
			errs = append(errs, fmt.Errorf("image_limits.time is %q, want a duration such as 20m", l.Time))
		}
	}
	if out.Bytes < 0 || out.Ratio < 0 || out.Entries < 0 || out.Names < 0 || out.Memory < 0 || out.Time < 0 {
		errs = append(errs, errors.New("image_limits holds a number below 0"))
	}
	return attempt[ImageLimits]{out, errors.Join(errs...)}
}
