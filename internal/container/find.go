// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package container

import (
	"cmp"
	"slices"
	"strings"
)

// Get finds a container by id, name or unique prefix of its id.
func (s *Service) Get(ref string) (Info, error) {
	e, err := s.find(ref)
	if err != nil {
		return Info{}, err
	}
	return e.info(), nil
}

// Filter picks containers. The zero value picks those that run.
type Filter struct {
	All    bool              // also those that do not run
	Labels map[string]string // all of them; an empty value means: has the label
}

// List tells of the containers that fit, the youngest first.
func (s *Service) List(f Filter) []Info {
	var infos []Info
	for _, e := range s.all() {
		if i := e.info(); f.picks(i) {
			infos = append(infos, i)
		}
	}
	slices.SortFunc(infos, func(a, b Info) int {
		return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(a.ID, b.ID))
	})
	return infos
}

func (f Filter) picks(i Info) bool {
	if !f.All && !i.Running() {
		return false
	}
	for key, want := range f.Labels {
		if have, ok := i.Config.Labels[key]; !ok || want != "" && have != want {
			return false
		}
	}
	return true
}

// ImageUsers names the containers made from an image, for image.Config.Users.
func (s *Service) ImageUsers(id string) []string {
	var users []string
	for _, e := range s.all() {
		if r := e.record(); r.ImageID == id {
			users = append(users, "container "+r.Config.Name)
		}
	}
	if s.Snapshots != nil {
		users = append(users, s.Snapshots.ImageUsers(id)...)
	}
	slices.Sort(users)
	return users
}

func (s *Service) all() []*entry {
	s.mu.RLock()
	defer s.mu.RUnlock()
	all := make([]*entry, 0, len(s.entries))
	for _, e := range s.entries {
		all = append(all, e)
	}
	return all
}

func (s *Service) find(ref string) (*entry, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if e, ok := s.entries[ref]; ok {
		return e, nil
	}
	if e, ok := s.entries[s.names[ref]]; ok {
		return e, nil
	}
	var begins []*entry
	for id, e := range s.entries {
		if ref != "" && strings.HasPrefix(id, ref) {
			begins = append(begins, e)
		}
	}
	switch len(begins) {
	case 0:
		return nil, &NotFoundError{Ref: ref}
	case 1:
		return begins[0], nil
	default:
		return nil, &AmbiguousError{Ref: ref, Count: len(begins)}
	}
}
