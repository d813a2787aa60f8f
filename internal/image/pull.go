// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/authn"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/micropod/micropod/internal/image/registry"
)

// Auth are credentials for one pull. IdentityToken (an OAuth refresh token) or
// RegistryToken (a bearer token) stand in for user name and password.
type Auth struct {
	Username, Password           string
	IdentityToken, RegistryToken string
}

// PullOptions says how to pull.
type PullOptions struct {
	// Platform is "os/architecture[/variant]"; empty means this host's.
	Platform string
	// Progress, if not nil, is called from one goroutine at a time, and not
	// after Pull has returned; slowness there does not slow the pull.
	Progress func(Event)
	// Auth is used instead of the Config's keychain.
	Auth *Auth
}

// Pull brings an image from its registry into the store and makes its root
// file system. It asks the registry also for what is here, since tags move, and
// fetches only what is missing. Equal pulls at the same time are one. When ctx
// is cancelled what was fetched is kept for the next try.
func (s *Store) Pull(ctx context.Context, ref string, opts PullOptions) (*Image, error) {
	named, err := parseReference(ref)
	if err != nil {
		return nil, err
	}
	platform, err := choosePlatform(opts.Platform)
	if err != nil {
		return nil, err
	}
	img, err := s.pulls.do(ctx, pullKey(named, opts), opts.Progress, func(ctx context.Context, post func(Event)) (*Image, error) {
		return s.pull(ctx, named, platform, opts.Auth, post)
	})
	if err != nil {
		return nil, fmt.Errorf("pulling %s: %w", Familiar(named.String()), err)
	}
	copied := *img
	return &copied, nil
}

// pullKey is equal for pulls that may share one run: also the credentials have
// to be, or one user would get in on another's.
func pullKey(named reference.Named, opts PullOptions) string {
	auth := ""
	if opts.Auth != nil {
		auth = fmt.Sprintf("%x", sha256.Sum256(fmt.Appendf(nil, "%q", *opts.Auth)))
	}
	return named.String() + "\n" + opts.Platform + "\n" + auth
}

func (s *Store) pull(ctx context.Context, named reference.Named, platform platformChoice, auth *Auth, post func(Event)) (*Image, error) {
	src := &registrySource{s: s, repo: s.client.Repository(named, auth.authenticator())}
	post(Event{ID: "manifest", State: StateResolving})
	top, err := src.repo.Manifest(ctx, target(named))
	if err != nil {
		return nil, explain(err, named)
	}
	f, err := resolve(ctx, src, platform, ocispec.Descriptor{MediaType: top.MediaType, Digest: top.Digest, Size: int64(len(top.Bytes))}, top.Bytes)
	if err != nil {
		return nil, err
	}
	post(Event{ID: "manifest", State: StateDone, Message: top.Digest.String()})
	refs := []string{byDigest(named, top.Digest)}
	if tag := tagOf(named); tag != "" {
		refs = append(refs, tag)
	}
	l := s.newLease()
	img, err := s.admit(ctx, src, f, refs, l, post)
	l.release(err != nil && !blameless(err))
	return img, err
}

func (a *Auth) authenticator() authn.Authenticator {
	if a == nil {
		return nil
	}
	return authn.FromConfig(authn.AuthConfig{
		Username: a.Username, Password: a.Password, IdentityToken: a.IdentityToken, RegistryToken: a.RegistryToken,
	})
}

// explain adds what the user can do.
func explain(err error, named reference.Named) error {
	switch {
	case errors.Is(err, ErrUnauthorized):
		return fmt.Errorf("%w; it does not exist, or needs credentials: log in to %s", err, reference.Domain(named))
	case errors.Is(err, ErrRateLimited):
		return fmt.Errorf("%w; wait, or log in to %s for a higher limit", err, reference.Domain(named))
	}
	return err
}

// registrySource fetches from a repository.
type registrySource struct {
	s    *Store
	repo *registry.Repository
}

func (r *registrySource) manifest(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
	if b, err := r.s.readBlob(d, maxManifest); err == nil {
		return b, nil
	}
	m, err := r.repo.Manifest(ctx, d.Digest.String())
	if err != nil {
		return nil, err
	}
	return m.Bytes, verify(m.Bytes, d)
}

func (r *registrySource) config(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
	if d.Size > maxConfig {
		return nil, corrupt("image configuration %s has %d bytes, more than the limit of %d", d.Digest, d.Size, maxConfig)
	}
	if b, err := r.s.readBlob(d, maxConfig); err == nil {
		return b, nil
	}
	var m memory
	err := r.fetch(ctx, d, &m, nil, func() error { return verify(m.b, d) })
	return m.b, err
}

// memory is a registry.Sink for small blobs; registry bounds it by their size.
type memory struct{ b []byte }

func (m *memory) Write(p []byte) (int, error) { m.b = append(m.b, p...); return len(p), nil }
func (m *memory) Offset() int64               { return int64(len(m.b)) }
func (m *memory) Reset() error                { m.b = nil; return nil }

// blob fetches a layer once for all pulls that want it now.
func (r *registrySource) blob(ctx context.Context, d ocispec.Descriptor, post func(Event)) error {
	_, err := r.s.fetches.do(ctx, d.Digest.String(), post, func(ctx context.Context, post func(Event)) (struct{}, error) {
		if r.s.hasBlob(d) {
			return struct{}{}, nil
		}
		return struct{}{}, r.store(ctx, d, post)
	})
	return err
}

// place is nowhere: all that is fetched is kept.
func (r *registrySource) place(ocispec.Descriptor) *place { return nil }

// store fetches a layer, going on with what is here of it.
func (r *registrySource) store(ctx context.Context, d ocispec.Descriptor, post func(Event)) error {
	in, err := r.s.resumeIngest(d)
	if err != nil {
		return err
	}
	defer in.keep()
	err = r.fetch(ctx, d, in, reporter(d, post), func() error { return in.commit(d) })
	if errors.Is(err, ErrCorrupt) {
		in.discard()
	}
	return err
}

// fetch fills sink and lets check judge the whole. What turns out wrong is
// fetched once more from the start: a bad line may be to blame, or a part that
// a crash spoiled.
func (r *registrySource) fetch(ctx context.Context, d ocispec.Descriptor, sink registry.Sink, report registry.Report, check func() error) error {
	for again := true; ; again = false {
		err := r.repo.Blob(ctx, d, sink, report)
		if err == nil {
			err = check()
		}
		if !again || ctx.Err() != nil || !errors.Is(err, ErrCorrupt) {
			return err
		}
		if err := sink.Reset(); err != nil {
			return err
		}
	}
}

func reporter(d ocispec.Descriptor, post func(Event)) registry.Report {
	return func(done int64, retrying error) {
		e := Event{ID: short(d.Digest), State: StateDownloading, Done: done, Total: d.Size}
		if retrying != nil {
			e.State, e.Message = StateRetrying, retrying.Error()
		}
		post(e)
	}
}
