// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"

	"github.com/micropod/micropod/internal/template"
	"github.com/micropod/micropod/internal/vmm"
)

// contentNamed is a file whose name tells its content, as BootFiles names them.
var contentNamed = regexp.MustCompile(`-[0-9a-f]{64}(\.cpio)?$`)

// maxTSCDrift is by how much the time stamp counters of the host that made a template
// and of this one may differ, in millionths: NTP corrects as much (adjtimex(2)).
const maxTSCDrift = 500

// templateKey is what a template for this start depends on.
func (b *boot) templateKey(ctx context.Context) (template.Key, error) {
	engine, ok := b.engine.(vmm.Fingerprinter)
	if !ok {
		return template.Key{}, &vmm.UnsupportedError{Engine: b.engine.Name(), Feature: "templates", Reason: "it does not tell what a snapshot depends on"}
	}
	c := b.config()
	fingerprint, err := engine.Fingerprint(ctx, c)
	if err != nil {
		return template.Key{}, err
	}
	anywhere := b.files
	anywhere.TSCKHz = 0
	k := template.Key{
		Engine: b.engine.Name(), Fingerprint: fingerprint,
		Args:  anywhere.CommandLine(b.spec.VCPUs, b.spec.Args),
		VCPUs: c.VCPUs, Memory: c.Memory, Interfaces: len(c.Interfaces), Nested: c.Nested,
	}
	for _, d := range c.Drives {
		if d.ReadOnly {
			k.Slots += "r"
		} else {
			k.Slots += "w"
		}
	}
	if k.Kernel, err = contentName(c.Kernel); err != nil {
		return template.Key{}, err
	}
	k.Initrd, err = contentName(c.Initrd)
	return k, err
}

// contentName tells a file's content apart from that of another time.
func contentName(path string) (string, error) {
	if name := filepath.Base(path); contentNamed.MatchString(name) {
		return name, nil
	}
	s, err := stampOf(path)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s %d %d", s.path, s.size, s.time.UnixNano()), nil
}

// usual says whether a template is made for this start when there is none: an odd kernel's would
// hardly be used again.
func (s Spec) usual() bool {
	return s.Kernel == "" && s.Args == "" && !s.Nested && !s.hasOwnDevices()
}

// pickTemplate sets the template to restore from, made now if need be. That there is none is no
// error: the machine boots then.
func (b *boot) pickTemplate(ctx context.Context) error {
	if b.s.Templates == nil || b.blank || b.spec.hasOwnDevices() {
		return nil
	}
	key, err := b.templateKey(ctx)
	if err != nil {
		var unsupported *vmm.UnsupportedError
		if !errors.As(err, &unsupported) {
			b.log.Warn("finding a template", "error", err)
		}
		return nil
	}
	t, release, err := b.s.template(ctx, key, b.spec)
	if err != nil {
		if ctx.Err() == nil {
			b.log.Warn("booting the machine, since there is no template", "error", err)
		}
		return nil
	}
	if t == nil {
		return nil
	}
	b.template = t
	b.mu.Lock()
	b.run.release = release
	b.mu.Unlock()
	return nil
}

func (b *boot) templateID() string {
	if b.template == nil {
		return ""
	}
	return b.template.ID
}

// template finds the key's template or has it made, if the spec is one that others will ask for too.
func (s *Service) template(ctx context.Context, k template.Key, spec Spec) (*template.Template, func(), error) {
	for range 2 {
		t, release, err := s.Templates.Find(ctx, k)
		if err != nil {
			return nil, nil, err
		}
		if t != nil {
			if err := s.fitsHost(ctx, spec, t); err == nil {
				return t, release, nil
			} else {
				release()
				s.Templates.Drop(t.ID, err)
			}
		}
		if !spec.usual() || s.builds.gaveUp(k.ID()) {
			return nil, nil, nil
		}
		if err := s.build(ctx, k, spec); err != nil {
			return nil, nil, err
		}
	}
	return nil, nil, errors.New("the template that was just made is gone")
}

// fitsHost says whether guests of the template, made on another host perhaps, would tell the right time on this one.
func (s *Service) fitsHost(ctx context.Context, spec Spec, t *template.Template) error {
	files, err := s.Boot.Boot(ctx, spec.Kernel, spec.Nested)
	if err != nil {
		return err
	}
	if tscDrift(t.Note.TSCKHz, files.TSCKHz) > maxTSCDrift {
		return fmt.Errorf("it was made on a host whose time stamp counter runs at %d kHz, this one's at %d", t.Note.TSCKHz, files.TSCKHz)
	}
	return nil
}

// tscDrift is by how much two frequencies differ, in millionths of the second.
func tscDrift(there, here uint64) uint64 {
	return (max(there, here) - min(there, here)) * 1_000_000 / max(here, 1)
}

// startOver takes back a restore that went wrong, so that the machine can be booted.
func (b *boot) startOver(ctx context.Context, failed string, err error) (string, error) {
	b.log.Warn("the template did not do, booting instead", "template", b.template.ID, "step", failed, "error", err)
	if undone := b.undo.Run(ctx); undone != nil {
		return failed, errors.Join(err, undone)
	}
	old := b.run
	if old.vm != nil {
		if err := old.vm.Close(); err != nil {
			b.log.Error("freeing what the engine held", "error", err)
		}
	}
	b.run = newRun()
	b.mu.Lock()
	b.machine.run = b.run
	b.mu.Unlock()
	b.finish(old)
	b.s.Templates.Drop(b.template.ID, err)
	b.s.builds.failed(b.template.ID)
	b.template = nil
	return failed, b.note(func(r *record) { r.VMM, r.Template = nil, "" })
}

// removeHidden takes a machine of the daemon's own out of the list, and what it leaves.
func (m *machine) removeHidden() error {
	m.s.forget(m)
	return os.RemoveAll(m.s.runDir(m.id))
}
