// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"
)

// Options is what a command line and its environment say.
type Options struct {
	File, DataDir, RunDir, Host, LogLevel string

	// Getenv is where the environment is read; nil means os.Getenv.
	Getenv func(string) string
	// DefaultFile is read when no file is named, if it exists; empty means /etc/micropod/config.toml.
	DefaultFile string
}

// AddFlags adds what client and daemon share.
func (o *Options) AddFlags(f *pflag.FlagSet) {
	f.StringVar(&o.File, "config", "", "configuration file (default "+DefaultFile+", if there is one)")
	f.StringVar(&o.DataDir, "data-dir", "", "folder of images, disks and state (MICROPOD_DATA_DIR; default "+DefaultDataDir+")")
	f.StringVar(&o.RunDir, "run-dir", "", "folder of sockets and logs (MICROPOD_RUN_DIR; default "+DefaultRunDir+")")
	f.StringVarP(&o.Host, "host", "H", "", "the daemon's socket, unix:///PATH (MICROPOD_HOST; default RUN_DIR/micropod.sock)")
	f.StringVar(&o.LogLevel, "log-level", "", "the daemon's log: debug, info, warn or error (default info)")
}

// Load puts flags, environment, file and defaults together and checks the
// result. Its errors name the setting and where it came from.
func (o *Options) Load() (*Config, error) {
	file, path, err := o.readFile()
	if err != nil {
		return nil, err
	}
	c := &Config{
		File:               path,
		Kernel:             file.Kernel,
		QEMU:               file.QEMU,
		Engine:             cmp.Or(file.Engine, "auto"),
		Firecracker:        file.Firecracker,
		Jailer:             file.Jailer,
		Unjailed:           file.Unjailed,
		OTLPEndpoint:       cmp.Or(file.OTLPEndpoint, o.getenv("OTEL_EXPORTER_OTLP_ENDPOINT")),
		InsecureRegistries: file.InsecureRegistries,
		SocketGroup:        file.SocketGroup,
		Mirrors:            file.Mirrors,
		VCPUs:              cmp.Or(file.DefaultVCPUs, defaultVCPUs),
		Network:            cmp.Or(o.getenv("MICROPOD_DEFAULT_NETWORK"), file.DefaultNetwork, defaultNetwork),
		PoolMin:            file.PoolMin,
		PoolMax:            file.PoolMax,
		UIDFirst:           cmp.Or(file.UIDFirst, defaultUIDFirst),
		UIDCount:           cmp.Or(file.UIDCount, defaultUIDCount),
	}
	var errs []error
	c.DataDir = keep(&errs, o.path(o.DataDir, "MICROPOD_DATA_DIR", file.DataDir, DefaultDataDir))
	c.RunDir = keep(&errs, o.path(o.RunDir, "MICROPOD_RUN_DIR", file.RunDir, DefaultRunDir))
	c.Host = keep(&errs, parseHost(cmp.Or(o.Host, o.getenv("MICROPOD_HOST"), file.Host)))
	c.Agent = keep(&errs, findAgent(file.Agent))
	c.ImageLimits = keep(&errs, file.ImageLimits.limits())
	c.Memory = keep(&errs, file.DefaultMemory.orElse("default_memory", defaultMemory))
	c.Scratch = keep(&errs, file.DefaultScratch.orElse("default_scratch", defaultScratch))
	c.PoolMemory = keep(&errs, file.PoolMemory.orElse("pool_memory", defaultPoolMemory))
	c.LogLevel = keep(&errs, parseLevel(cmp.Or(o.LogLevel, file.LogLevel, "info")))
	errs = append(errs, c.check())
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	return c, nil
}

// attempt is a value or why there is none.
type attempt[T any] struct {
	v   T
	err error
}

func keep[T any](errs *[]error, a attempt[T]) T {
	*errs = append(*errs, a.err)
	return a.v
}

func (o *Options) getenv(name string) string {
	if o.Getenv != nil {
		return o.Getenv(name)
	}
	return os.Getenv(name)
}

func (o *Options) readFile() (settings, string, error) {
	path := cmp.Or(o.File, o.getenv("MICROPOD_CONFIG"))
	named := path != ""
	if !named {
		path = cmp.Or(o.DefaultFile, DefaultFile)
	}
	raw, err := os.ReadFile(path)
	if !named && errors.Is(err, fs.ErrNotExist) {
		return settings{}, "", nil
	}
	if err != nil {
		return settings{}, "", fmt.Errorf("reading the configuration: %w", err)
	}
	s, err := parse(raw)
	if err != nil {
		return settings{}, "", fmt.Errorf("configuration file %s: %w", path, err)
	}
	path, err = filepath.Abs(path)
	return s, path, err
}

func (o *Options) path(flag, env, file, fallback string) attempt[string] {
	p, err := filepath.Abs(cmp.Or(flag, o.getenv(env), file, fallback))
	return attempt[string]{p, err}
}

// parseHost takes unix:///PATH or a plain absolute path.
func parseHost(host string) attempt[string] {
	path := strings.TrimPrefix(host, "unix://")
	if host == "" || filepath.IsAbs(path) {
		return attempt[string]{v: path}
	}
	return attempt[string]{err: fmt.Errorf("host %q is no unix:///PATH", host)}
}

// findAgent is the named path, else the agent beside this program, else where packages put it.
func findAgent(named string) attempt[string] {
	const name = "micropod-agent"
	if named != "" {
		p, err := filepath.Abs(named)
		return attempt[string]{p, err}
	}
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), name)
		if _, err := os.Stat(beside); err == nil {
			return attempt[string]{v: beside}
		}
	}
	return attempt[string]{v: filepath.Join(libexecDir, name)}
}

func parseLevel(text string) attempt[slog.Level] {
	var l slog.Level
	if err := l.UnmarshalText([]byte(text)); err != nil {
		return attempt[slog.Level]{err: fmt.Errorf("log level %q is none of debug, info, warn, error", text)}
	}
	return attempt[slog.Level]{v: l}
}

// maxRunDir is what leaves room for the longest socket below RunDir: sun_path holds
// 107 bytes (unix(7)).
const maxRunDir = 107 - len("/machines/0123456789abcdef/firecracker.sock")

func (c *Config) check() error {
	var errs []error
	bad := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	bad(c.VCPUs >= 1 && c.VCPUs <= 1024, "default_vcpus is %d, want 1 to 1024", c.VCPUs)
	bad(c.Memory >= 128<<20, "default_memory is %d bytes, want at least 128m", c.Memory)
	bad(c.Scratch >= 16<<20, "default_scratch is %d bytes, want at least 16m", c.Scratch)
	bad(c.UIDFirst >= 1000 && c.UIDCount >= 1 && int64(c.UIDFirst)+int64(c.UIDCount) < 1<<31,
		"uid_first %d and uid_count %d: want a range from 1000 on below 2147483648", c.UIDFirst, c.UIDCount)
	bad(len(c.RunDir) <= maxRunDir, "run_dir %s is too long for the sockets below it: it may have %d bytes", c.RunDir, maxRunDir)
	bad(c.PoolMin >= 0 && c.PoolMin <= c.PoolMax && c.PoolMax <= 1024, "pool_min %d and pool_max %d: want 0 <= pool_min <= pool_max <= 1024", c.PoolMin, c.PoolMax)
	bad(c.PoolMemory >= 0, "pool_memory is %d bytes, below 0", c.PoolMemory)
	bad(c.OTLPEndpoint == "" || strings.HasPrefix(c.OTLPEndpoint, "http://") || strings.HasPrefix(c.OTLPEndpoint, "https://"),
		"otlp_endpoint %q is no URL such as http://localhost:4318", c.OTLPEndpoint)
	return errors.Join(errs...)
}
