// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/micropod/micropod/internal/config"
	"github.com/micropod/micropod/internal/container"
	"github.com/micropod/micropod/internal/doctor"
	"github.com/micropod/micropod/internal/events"
	"github.com/micropod/micropod/internal/image"
	"github.com/micropod/micropod/internal/lan"
	"github.com/micropod/micropod/internal/machine"
	"github.com/micropod/micropod/internal/network/mmds"
	"github.com/micropod/micropod/internal/network/portproxy"
	"github.com/micropod/micropod/internal/rootfs"
	"github.com/micropod/micropod/internal/server"
	"github.com/micropod/micropod/internal/snapshot"
	"github.com/micropod/micropod/internal/store"
	"github.com/micropod/micropod/internal/template"
	"github.com/micropod/micropod/internal/tracing/recorder"
	"github.com/micropod/micropod/internal/version"
	"github.com/micropod/micropod/internal/vmm"
	"github.com/micropod/micropod/internal/vmm/firecracker"
	"github.com/micropod/micropod/internal/vmm/late"
	"github.com/micropod/micropod/internal/vmm/qemu"
)

// letGoLimit bounds the way from SIGTERM to the process's end.
const letGoLimit = 10 * time.Second

// daemon is every part, in the order in which they are made. They are let go of in reverse.
type daemon struct {
	config *config.Config
	log    *slog.Logger

	place       *server.Occupancy
	db          *store.DB
	events      *events.Bus
	boot        *machine.BootFiles
	qemu        *late.Engine[*qemu.Engine]
	firecracker *late.Engine[*firecracker.Engine]
	networks    *lan.Service
	machines    *machine.Service
	images      *image.Store
	containers  *container.Service
	snapshots   *snapshot.Catalogue
	spans       *recorder.Recorder
}

// serve runs the daemon until ctx ends, and then lets go of its machines: they go on.
func serve(ctx context.Context, c *config.Config, log *slog.Logger) (err error) {
	d := &daemon{config: c, log: log, events: new(events.Bus)}
	defer func() { err = errors.Join(err, d.letGo()) }()
	for _, part := range []func() error{d.occupy, d.record, d.openStore, d.makeEngines, d.openNetworks, d.openMachines, d.openImages, d.openContainers} {
		if err := part(); err != nil {
			return err
		}
	}
	return d.answer(ctx)
}

func (d *daemon) occupy() (err error) {
	if err := os.MkdirAll(d.config.DataDir, 0o711); err != nil {
		return fmt.Errorf("making the data folder: %w", err)
	}
	d.place, err = server.Occupy(d.config.PIDFile())
	return err
}

func (d *daemon) record() (err error) {
	d.spans, err = recorder.New(context.Background(), d.config.OTLPEndpoint, version.Version)
	return err
}

func (d *daemon) openStore() (err error) {
	d.db, err = store.Open(filepath.Join(d.config.DataDir, "state.db"))
	return err
}

func (d *daemon) openNetworks() (err error) {
	d.networks, err = lan.Open(lan.Config{
		DB: d.db, DataDir: d.config.DataDir, RunDir: d.config.RunDir,
		Proxy: []string{"/proc/self/exe", portproxy.Verb}, Metadata: []string{"/proc/self/exe", mmds.Verb},
		Events: d.events, Log: d.log,
	})
	return err
}

func (d *daemon) openMachines() (err error) {
	templates, err := template.Open(filepath.Join(d.config.DataDir, "templates"), d.log)
	if err != nil {
		return err
	}
	if d.snapshots, err = snapshot.Open(filepath.Join(d.config.DataDir, "snapshots"), d.log); err != nil {
		return err
	}
	d.machines, err = machine.New(machine.Config{
		Engines:  []vmm.Engine{d.firecracker, d.qemu},
		Auto:     d.auto,
		DB:       d.db,
		Boot:     d.boot,
		MakeDisk: (&rootfs.ScratchMaker{Dir: filepath.Join(d.config.DataDir, "scratch")}).Create,

		Snapshots:      d.snapshots,
		Templates:      templates,
		TemplateBounds: template.Bounds{Count: 8},
		Pool:           machine.PoolBounds{Min: d.config.PoolMin, Max: d.config.PoolMax, Bytes: d.config.PoolMemory},

		DataDir:        d.config.DataDir,
		RunDir:         d.config.RunDir,
		Network:        d.networks,
		DefaultNetwork: d.config.Network,
		Events:         d.events,
		Log:            d.log,
		UIDFirst:       d.config.UIDFirst,
		UIDCount:       d.config.UIDCount,
		VCPUs:          d.config.VCPUs,
		Memory:         d.config.Memory,
		Scratch:        d.config.Scratch,
	})
	return err
}

func (d *daemon) openImages() (err error) {
	d.images, err = image.Open(image.Config{
		Root:               filepath.Join(d.config.DataDir, "images"),
		Convert:            converter(d.config.ImageLimits),
		Users:              func(id digest.Digest) []string { return d.containers.ImageUsers(id.String()) },
		InsecureRegistries: d.config.InsecureRegistries,
		Mirrors:            d.config.Mirrors,
		Logger:             d.log,
	})
	return err
}

// converter puts the converter behind the image store's own types.
func converter(l config.ImageLimits) image.ConvertFunc {
	limits := rootfs.Limits{Bytes: l.Bytes, Ratio: l.Ratio, Entries: l.Entries, Names: l.Names, Memory: l.Memory, Time: l.Time}
	return func(ctx context.Context, layers []image.Layer, out string, progress func(done, total int64)) (image.RootFS, error) {
		in := make([]rootfs.Layer, len(layers))
		for i, l := range layers {
			in[i] = rootfs.Layer{Path: l.Path, Offset: l.Offset, Size: l.Size, DiffID: l.DiffID, Ready: l.Ready}
		}
		r, err := rootfs.ConvertIsolated(ctx, in, out, limits, progress)
		return image.RootFS{Digest: r.Digest, Size: r.Size, Entries: r.Entries}, err
	}
}

func (d *daemon) openContainers() (err error) {
	d.containers, err = container.New(container.ServiceConfig{
		Machines:  container.FromMachines(d.machines),
		Images:    d.images,
		Snapshots: d.snapshots,
		DB:        d.db,
		Dir:       filepath.Join(d.config.DataDir, "containers"),
		Events:    d.events,
		Log:       d.log,
	})
	return err
}

// answer serves the API until ctx ends.
func (d *daemon) answer(ctx context.Context) error {
	s := server.New(server.Config{
		Machines:      d.machines,
		Containers:    d.containers,
		ContainersRPC: server.NewContainers(d.containers, d.machines),
		Images:        d.images,
		Networks:      d.networks,
		Doctor:        d.doctor(),
		Events:        d.events,
		Spans:         d.spans,
		DB:            d.db,
		Log:           d.log,
		DataDir:       d.config.DataDir,
		RunDir:        d.config.RunDir,
		BootCache:     d.boot.CacheDir,
	})
	l, err := d.listen()
	if err != nil {
		return err
	}
	if err := server.TellReady(); err != nil {
		d.log.Warn("starting", "error", err)
	}
	d.log.Info("micropodd serves", "version", version.Version, "socket", d.config.ListenSocket(), "machines", len(d.machines.List()))
	failed := make(chan error, 1)
	go func() { failed <- s.Serve(l) }()
	select {
	case err = <-failed:
	case <-ctx.Done():
		d.log.Info("micropodd lets go; machines go on")
	}
	d.containers.Close() // before the server: what clients have not taken stays with the agents
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), letGoLimit/2)
	defer cancel()
	return errors.Join(err, s.Shutdown(ctx))
}

func (d *daemon) doctor() *doctor.Doctor {
	return doctor.New(doctor.Config{
		ProbeKVM:    d.probeKVM,
		Firecracker: d.foundFirecracker,
		Auto:        func(ctx context.Context) string { return d.auto(ctx, false) },
		QEMU:        cmp.Or(d.config.QEMU, "qemu-system-x86_64"),
		Kernel:      d.boot.Find,
		Agent:       d.config.Agent,
		DataDir:     d.config.DataDir,
	})
}

// letGo closes what was opened, the last first.
func (d *daemon) letGo() error {
	ctx, cancel := context.WithTimeout(context.Background(), letGoLimit)
	defer cancel()
	var errs []error
	if d.containers != nil {
		d.containers.Close()
	}
	if d.images != nil {
		errs = append(errs, d.images.Close())
	}
	if d.machines != nil {
		errs = append(errs, d.machines.Shutdown(ctx))
	}
	if d.networks != nil {
		errs = append(errs, d.networks.Close())
	}
	if d.db != nil {
		errs = append(errs, d.db.Close())
	}
	if d.spans != nil {
		if err := d.spans.Close(ctx); err != nil {
			d.log.Warn("exporting the last traces", "error", err)
		}
	}
	if d.place != nil {
		errs = append(errs, d.place.Release())
	}
	return errors.Join(errs...)
}
