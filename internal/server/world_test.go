// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/opencontainers/go-digest"

	v1 "github.com/micropod/micropod/api/micropod/v1"
	"github.com/micropod/micropod/api/micropod/v1/micropodv1connect"
	"github.com/micropod/micropod/internal/container"
	"github.com/micropod/micropod/internal/doctor"
	"github.com/micropod/micropod/internal/events"
	"github.com/micropod/micropod/internal/guest/kernel"
	"github.com/micropod/micropod/internal/image"
	"github.com/micropod/micropod/internal/machine"
	"github.com/micropod/micropod/internal/snapshot"
	"github.com/micropod/micropod/internal/store"
	"github.com/micropod/micropod/internal/vmm"
	"github.com/micropod/micropod/internal/vmm/enginetest"
)

// world is a server on a unix socket above fake machines and a real image store, and a client of it.
type world struct {
	host     *enginetest.Host
	owned    *owned
	server   *Server
	machines *machine.Service
	socket   string

	vms    micropodv1connect.FCControlClient
	images micropodv1connect.ImagesClient
	system micropodv1connect.SystemClient
	boxes  micropodv1connect.ContainersClient

	snapshots micropodv1connect.SnapshotsClient
}

// owned is the containers' side: one container that owns a machine, when machine is set.
type owned struct {
	machine string
	removed []string

	findings []machine.Finding
}

func (o *owned) Get(ref string) (container.Info, error) {
	if o.machine == "" || ref != "box" {
		return container.Info{}, &container.NotFoundError{Ref: ref}
	}
	return container.Info{ID: "box", MachineID: o.machine}, nil
}

func (o *owned) List(container.Filter) []container.Info {
	if o.machine == "" {
		return nil
	}
	return []container.Info{{ID: "box", MachineID: o.machine, State: container.Running}}
}

func (o *owned) Remove(_ context.Context, ref string, _ bool) (string, error) {
	o.removed = append(o.removed, ref)
	return ref, nil
}

func (o *owned) Check(context.Context) ([]machine.Finding, error) { return o.findings, nil }

func (o *owned) Snapshot(_ context.Context, ref, name string) (snapshot.Snapshot, error) {
	return snapshot.Snapshot{ID: "of-" + ref, Name: name}, nil
}

func (o *owned) SetEgress(_ context.Context, ref string, _ []string) (container.Info, error) {
	return o.Get(ref)
}

func (o *owned) Restore(context.Context, string, string) (container.Info, error) {
	return container.Info{ID: "box", MachineID: o.machine}, nil
}

func (o *owned) Clone(_ context.Context, _ string, names []string) (clones []container.Info, paused time.Duration, err error) {
	for _, name := range names {
		clones = append(clones, container.Info{Name: name})
	}
	return clones, time.Millisecond, nil
}

func (o *owned) LogUsage(string) (int64, error) { return 4096, nil }

// panics is a containers' service whose Get panics.
type panics struct {
	micropodv1connect.UnimplementedContainersHandler
}

func (panics) Get(context.Context, *connect.Request[v1.GetContainerRequest]) (*connect.Response[v1.GetContainerResponse], error) {
	panic("on purpose")
}

// bootFiles are empty.
type bootFiles struct{ dir string }

func (b bootFiles) Boot(context.Context, string, bool) (machine.Boot, error) {
	path := filepath.Join(b.dir, "vmlinux")
	return machine.Boot{Kernel: path, Initrd: path}, os.WriteFile(path, nil, 0o600)
}

func newWorld(t *testing.T) *world {
	t.Helper()
	dir := t.TempDir()
	w := &world{host: enginetest.NewHost(), owned: &owned{}, socket: filepath.Join(dir, "sock")}
	bus := new(events.Bus)
	db, err := store.Open(filepath.Join(dir, "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	saved, err := snapshot.Open(filepath.Join(dir, "snapshots"), nil)
	if err != nil {
		t.Fatal(err)
	}
	w.machines, err = machine.New(machine.Config{
		Snapshots: saved,

		Engines:  []vmm.Engine{enginetest.Engine{Host: w.host, Called: "fake"}},
		DB:       db,
		Boot:     bootFiles{dir},
		MakeDisk: func(_ context.Context, path string, _ int64) error { return os.WriteFile(path, nil, 0o600) },
		DataDir:  dir,
		RunDir:   dir,
		Events:   bus,
	})
	if err != nil {
		t.Fatal(err)
	}
	images, err := image.Open(image.Config{Root: filepath.Join(dir, "images"), Convert: convertNothing})
	if err != nil {
		t.Fatal(err)
	}
	w.server = New(Config{
		Machines: w.machines, Containers: w.owned, DB: db, ContainersRPC: panics{}, Images: images, Events: bus,
		Doctor: doctor.New(doctor.Config{
			ProbeKVM:    func(context.Context) (bool, string, error) { return false, "it is a test", nil },
			Firecracker: func() (string, string, error) { return "", "", errors.New("it is a test") },
			Auto:        func(context.Context) string { return "fake" },
			QEMU:        "/nowhere/qemu",
			Kernel:      func() (kernel.Kernel, error) { return kernel.Kernel{Path: "/boot/k", Version: "6.1"}, nil },
			Agent:       "/nowhere/agent",
			DataDir:     dir,
		}),
		DataDir: dir, RunDir: dir, BootCache: dir,
	})
	l, err := net.Listen("unix", w.socket)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- w.server.Serve(l) }()
	w.dial(t)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		for _, i := range w.machines.List() {
			_ = w.machines.Delete(ctx, i.ID, true)
		}
		if err := errors.Join(w.server.Shutdown(ctx), <-served, images.Close(), w.machines.Shutdown(ctx), db.Close()); err != nil {
			t.Errorf("shutting down: %v", err)
		}
	})
	return w
}

func (w *world) dial(t *testing.T) {
	var p http.Protocols
	p.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: &p, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", w.socket)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	c := &http.Client{Transport: transport}
	w.vms = micropodv1connect.NewFCControlClient(c, "http://x")
	w.images = micropodv1connect.NewImagesClient(c, "http://x")
	w.system = micropodv1connect.NewSystemClient(c, "http://x")
	w.boxes = micropodv1connect.NewContainersClient(c, "http://x")
	w.snapshots = micropodv1connect.NewSnapshotsClient(c, "http://x")
}

// convertNothing writes a file in place of a root file system.
func convertNothing(_ context.Context, _ []image.Layer, out string, _ func(done, total int64)) (image.RootFS, error) {
	body := []byte("root file system")
	return image.RootFS{Digest: digest.NewDigestFromBytes(digest.SHA256, sum(body)), Size: int64(len(body))}, os.WriteFile(out, body, 0o600)
}

func sum(b []byte) []byte {
	s := sha256.Sum256(b)
	return s[:]
}

// plainTar is a root file system as a tar.
func plainTar(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: "etc/passwd", Mode: 0o644, Size: 4}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("root")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// wantError checks what a caller is told.
func wantError(t *testing.T, err error, rpc connect.Code, code string) *v1.ErrorDetail {
	t.Helper()
	var e *connect.Error
	if !errors.As(err, &e) || e.Code() != rpc || len(e.Details()) != 1 {
		t.Errorf("got %v, want code %v with one detail", err, rpc)
		return &v1.ErrorDetail{}
	}
	value, err := e.Details()[0].Value()
	if err != nil {
		t.Fatal(err)
	}
	d := value.(*v1.ErrorDetail)
	if d.Code != code || d.Message != e.Message() {
		t.Errorf("detail is %v, want code %s and the message %q", d, code, e.Message())
	}
	return d
}
