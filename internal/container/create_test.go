// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package container_test

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"testing"

	imagespec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/micropod/micropod/internal/container"
	"github.com/micropod/micropod/internal/container/ocispec"
	"github.com/micropod/micropod/internal/image"
	"github.com/micropod/micropod/internal/machine"
)

func TestCreateThatFailsLeavesNothing(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	for name, test := range map[string]struct {
		spoil  func(*world)
		config container.Config
		want   any
	}{
		"no image named":     {config: container.Config{}, want: new(*container.InvalidError)},
		"unknown image":      {config: container.Config{Image: "nope"}, want: image.ErrNotFound},
		"other architecture": {config: container.Config{Image: "alien"}, want: image.ErrPlatform},
		"bad name":           {config: container.Config{Image: "box", Name: "-x"}, want: new(*container.InvalidError)},
		"bad pull":           {config: container.Config{Image: "box", Pull: "often"}, want: new(*container.InvalidError)},
		"bad capability":     {config: container.Config{Image: "box", Config: ocispec.Config{CapAdd: []string{"FLY"}}}, want: new(*container.InvalidError)},
		"bad label":          {config: container.Config{Image: "box", Labels: map[string]string{"": "x"}}, want: new(*container.InvalidError)},
		"long labels":        {config: container.Config{Image: "box", Labels: map[string]string{"a": strings.Repeat("x", 1<<20)}}, want: new(*container.InvalidError)},
		"stop timeout":       {config: container.Config{Image: "box", StopWait: -1}, want: new(*container.InvalidError)},
		"machine fails":      {config: config(), spoil: func(w *world) { w.machines.Fail["Create"] = boom }, want: boom},
		"image store fails":  {config: config(), spoil: func(w *world) { w.images.Problem = boom }, want: boom},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			if test.spoil != nil {
				test.spoil(w)
			}
			_, _, err := w.Create(w.soon(), test.config, nil)
			if target, is := test.want.(error); is && !errors.Is(err, target) {
				t.Errorf("got %v, want %v", err, target)
			} else if !is && !errors.As(err, test.want) {
				t.Errorf("got %v, want a %T", err, test.want)
			}
			w.nothingLeft()
			w.images.Problem = nil
			c := test.config
			c.Image, c.Name, c.Pull, c.CapAdd, c.Labels, c.StopWait = "box", "again", "", nil, nil, 0
			w.create(c) // nothing stands in the way of the next
		})
	}
}

func TestCreateOfAClientThatLeft(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	left := errors.New("the client left")
	w.images.Remote["far"] = &image.Image{}
	w.images.OnPull = func(context.Context) { cancel(left) }
	if _, _, err := w.Create(ctx, container.Config{Image: "far", Name: "x"}, nil); !errors.Is(err, left) {
		t.Errorf("got %v, want why the client left", err)
	}
	w.nothingLeft()
	ctx, cancel = context.WithCancelCause(t.Context())
	w.machines.Before = func(method string) {
		if method == "Create" {
			cancel(left)
		}
	}
	if _, _, err := w.Create(ctx, config(), nil); !errors.Is(err, left) {
		t.Errorf("got %v, want why the client left", err)
	}
	w.machines.Before = nil
	w.nothingLeft()
}

func TestNames(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.create(container.Config{Image: "box", Name: "web"})
	var taken *container.NameInUseError
	_, _, err := w.Create(w.soon(), container.Config{Image: "box", Name: "web"}, nil)
	if !errors.As(err, &taken) || taken.Owner != first.ID || !strings.Contains(err.Error(), first.ID[:12]) || !strings.Contains(taken.Remediation(), "rm web") {
		t.Errorf("a second web gave %v, want one that names the owner and the mend", err)
	}
	chosen := w.create(config())
	if !regexp.MustCompile(`^[a-z]+_[a-z]+[0-9]*$`).MatchString(chosen.Name) || !regexp.MustCompile(`^[0-9a-f]{64}$`).MatchString(chosen.ID) {
		t.Errorf("chose name %q and id %q", chosen.Name, chosen.ID)
	}
	for _, ref := range []string{"web", first.ID, first.ID[:10]} {
		if i, err := w.Get(ref); err != nil || i.ID != first.ID {
			t.Errorf("%q finds %v, %v", ref, i.ID, err)
		}
	}
	var not *container.NotFoundError
	for _, ref := range []string{"", "nobody", "we", first.ID + "0"} {
		if _, err := w.Get(ref); !errors.As(err, &not) {
			t.Errorf("%q finds %v, want NotFoundError", ref, err)
		}
	}
	for range 40 {
		w.create(config())
	}
	var several *container.AmbiguousError
	ambiguous := false
	for _, digit := range "0123456789abcdef" {
		_, err := w.Get(string(digit))
		ambiguous = ambiguous || errors.As(err, &several)
	}
	if !ambiguous {
		t.Error("of 42 containers no two begin alike")
	}
	if _, err := w.Remove(w.soon(), "web", false); err != nil {
		t.Fatal(err)
	}
	w.create(container.Config{Image: "box", Name: "web"})
}

func TestPullPolicies(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		image  string
		pull   container.Pull
		pulled int
		fails  bool
	}{
		"missing, here":     {"box", "", 0, false},
		"missing, far":      {"far", container.PullMissing, 1, false},
		"never, here":       {"box", container.PullNever, 0, false},
		"never, far":        {"far", container.PullNever, 0, true},
		"always, here":      {"box", container.PullAlways, 0, true}, // no registry has it
		"always, far":       {"far", container.PullAlways, 1, false},
		"missing, nowhere":  {"nowhere", container.PullMissing, 0, true},
		"without root file": {"bare", container.PullMissing, 0, false},
	} {
		w := newWorld(t)
		w.images.Remote["far"] = &image.Image{RootFS: "/far", Config: imagespec.Image{Config: imagespec.ImageConfig{Cmd: []string{"true"}}}}
		bare := &image.Image{ID: "sha256:bare", Config: imagespec.Image{Config: imagespec.ImageConfig{Cmd: []string{"true"}}}}
		w.images.Here["bare"] = bare
		var told int
		i, _, err := w.Create(w.soon(), container.Config{Image: test.image, Pull: test.pull}, func(image.Event) { told++ })
		if (err != nil) != test.fails || w.images.Pulled != test.pulled || (test.pulled > 0) != (told > 0) && !test.fails {
			t.Errorf("%s: got %v, %d pulls, %d times told; want failure %t, %d pulls", name, err, w.images.Pulled, told, test.fails, test.pulled)
		}
		if err != nil {
			continue
		}
		if m, err := w.machines.Get(i.MachineID); err != nil || m.Image == "" {
			t.Errorf("%s: the machine has root file system %q, %v", name, m.Image, err)
		}
		if users := w.ImageUsers(i.ImageID); len(users) != 1 || !strings.Contains(users[0], i.Name) {
			t.Errorf("%s: the image's users are %q", name, users)
		}
	}
}

func TestMachineIsMadeForTheContainer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	spec := func(c container.Config) machine.Spec {
		m, err := w.machines.Get(w.create(c).MachineID)
		if err != nil {
			t.Fatal(err)
		}
		return m.Spec
	}
	if s := spec(config()); s.Memory != 0 || s.VCPUs != 0 {
		t.Errorf("without limits the machine is %+v; its sizes are the machine service's to choose", s)
	}
	c := config()
	c.Resources = ocispec.Resources{MemoryBytes: 300 << 20, NanoCPUs: 1_200_000_000, ScratchBytes: 1 << 30}
	c.Hostname = "h"
	if s := spec(c); s.Memory != 512<<20 || s.VCPUs != 2 || s.ScratchBytes != 1<<30 || s.Hostname != "h" {
		t.Errorf("for 300 MiB and 1.2 CPUs the machine is %+v", s)
	}
	c.VM = container.VM{VCPUs: 4, MemoryBytes: 128 << 20, Kernel: "k", KernelArgs: "a", Engine: "qemu", Nested: true, Labels: map[string]string{"l": "1"}, Annotations: map[string]string{"n": "1"}}
	if s := spec(c); s.Memory != 128<<20 || s.VCPUs != 4 || s.Kernel != "k" || s.Args != "a" || s.Engine != "qemu" || !s.Nested || s.Labels["l"] != "1" || s.Annotations["n"] != "1" {
		t.Errorf("what is asked of the machine itself became %+v", s)
	}
}

func TestList(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := config("sleep")
	a.Name, a.Labels = "a", map[string]string{"tier": "web", "x": ""}
	b := config()
	b.Name, b.Labels = "b", map[string]string{"tier": "db"}
	w.started(a)
	w.create(b)
	for want, f := range map[string]container.Filter{
		"a":   {},
		"b a": {All: true},
		"b":   {All: true, Labels: map[string]string{"tier": "db"}},
		"":    {Labels: map[string]string{"tier": "db"}},
		" a":  {Labels: map[string]string{"x": ""}},
	} {
		var got []string
		for _, i := range w.List(f) {
			got = append(got, i.Name)
		}
		if g := strings.Join(got, " "); g != strings.TrimSpace(want) {
			t.Errorf("%+v lists %q, want %q", f, g, want)
		}
	}
}
