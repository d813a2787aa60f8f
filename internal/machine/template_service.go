// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"context"
	"errors"
	"time"

	"github.com/micropod/micropod/internal/template"
)

// errNoTemplates: the daemon was made without a catalogue.
var errNoTemplates = errors.New("this daemon keeps no templates")

// BuildTemplate makes the template that machines of the spec's shape are restored from, and says whether it was
// there already. Of the spec count engine, kernel, arguments, vCPUs, memory and nesting. Errors: *SpecError,
// *vmm.UnsupportedError where the engine keeps none, what went wrong in its making.
func (s *Service) BuildTemplate(ctx context.Context, spec Spec) (t template.Template, existed bool, err error) {
	if s.Templates == nil {
		return t, false, errNoTemplates
	}
	b, key, err := s.foresee(ctx, spec)
	if err != nil {
		return t, false, err
	}
	found, release, err := s.Templates.Find(ctx, key)
	if err != nil {
		return t, false, err
	}
	if found != nil {
		defer release()
		if s.fitsHost(ctx, b.spec, found) == nil {
			t, err = s.Templates.Get(found.ID)
			return t, true, err
		}
	}
	if err := s.build(ctx, key, b.spec); err != nil {
		return t, false, err
	}
	t, err = s.Templates.Get(key.ID())
	return t, false, err
}

// foresee finds out what a start of the spec would be restored from.
func (s *Service) foresee(ctx context.Context, spec Spec) (*boot, template.Key, error) {
	spec, err := s.complete(ctx, shape(spec))
	if err != nil {
		return nil, template.Key{}, err
	}
	b := &boot{machine: s.newMachine(record{Spec: spec}), spec: spec, blank: true}
	if err := b.find(ctx); err != nil {
		return nil, template.Key{}, err
	}
	key, err := b.templateKey(ctx)
	return b, key, err
}

// shape is what of a spec a template depends on.
func shape(s Spec) Spec {
	return Spec{VCPUs: s.VCPUs, Memory: s.Memory, Engine: s.Engine, Kernel: s.Kernel, Args: s.Args, Nested: s.Nested}
}

// Ready begins to make the template that a start of the spec would wait for, if there is none. making is closed
// when that is over, however it went; nil when nothing is made.
func (s *Service) Ready(ctx context.Context, spec Spec) (making <-chan struct{}) {
	if s.Templates == nil || !spec.usual() {
		return nil
	}
	b, key, err := s.foresee(ctx, spec)
	if err != nil || s.Templates.Has(key) || s.builds.gaveUp(key.ID()) {
		return nil // a start tells what is wrong
	}
	done := make(chan struct{})
	leave, err := s.enter()
	if err != nil {
		return nil
	}
	go func() {
		defer leave()
		defer close(done)
		if err := s.build(s.life, key, b.spec); err != nil {
			s.Log.Warn("making a template ahead of its first use", "error", err)
		}
	}()
	return done
}

// TemplateList tells of all templates, the last used first.
func (s *Service) TemplateList() []template.Template {
	if s.Templates == nil {
		return nil
	}
	return s.Templates.List()
}

// GetTemplate finds one by its id or the id's begin.
func (s *Service) GetTemplate(ref string) (template.Template, error) {
	if s.Templates == nil {
		return template.Template{}, &template.NotFoundError{Ref: ref}
	}
	return s.Templates.Get(ref)
}

// RemoveTemplate removes one that no machine runs from. Errors: *template.NotFoundError, *template.InUseError.
func (s *Service) RemoveTemplate(ref string) (template.Template, error) {
	if s.Templates == nil {
		return template.Template{}, &template.NotFoundError{Ref: ref}
	}
	return s.Templates.Remove(ref)
}

// PruneTemplates removes those that no machine runs from and that were not used for idle.
func (s *Service) PruneTemplates(idle time.Duration) ([]template.Template, error) {
	if s.Templates == nil {
		return nil, nil
	}
	return s.Templates.Prune(template.Bounds{Idle: max(idle, 1)}, func(*template.Template) bool { return true })
}
