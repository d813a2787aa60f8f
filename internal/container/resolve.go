// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"

	"github.com/micropod/micropod/internal/image"
)

// resolve finds the image and its root file system, pulling it as the policy says.
// Until release is called the image cannot be removed.
func (s *Service) resolve(ctx context.Context, c Config, progress func(image.Event)) (img *image.Image, release func(), err error) {
	ref := c.Image
	if c.Pull == PullAlways {
		if ref, err = s.pull(ctx, c, progress); err != nil {
			return nil, nil, err
		}
	}
	img, release, err = s.Images.Acquire(ref)
	if errors.Is(err, image.ErrNotFound) && c.Pull == PullMissing {
		if ref, err = s.pull(ctx, c, progress); err != nil {
			return nil, nil, err
		}
		img, release, err = s.Images.Acquire(ref)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("image %q: %w", c.Image, err)
	}
	if img, err = s.ready(ctx, img, c.Platform, progress); err != nil {
		release()
		return nil, nil, fmt.Errorf("image %q: %w", c.Image, err)
	}
	return img, release, nil
}

// pull returns the id of what it fetched: the name may move on meanwhile.
func (s *Service) pull(ctx context.Context, c Config, progress func(image.Event)) (id string, err error) {
	img, err := s.Images.Pull(ctx, c.Image, image.PullOptions{Platform: c.Platform, Auth: c.Auth, Progress: progress})
	if err != nil {
		return "", fmt.Errorf("pulling image %q: %w", c.Image, err)
	}
	return img.ID.String(), nil
}

// ready makes sure that the image can run here.
func (s *Service) ready(ctx context.Context, img *image.Image, platform string, progress func(image.Event)) (*image.Image, error) {
	have := img.Config.OS + "/" + img.Config.Architecture
	for _, want := range []string{"linux/" + runtime.GOARCH, platform} {
		if want != "" && img.Config.Architecture != "" && have != want && !strings.HasPrefix(want, have+"/") {
			return nil, &image.PlatformError{Want: want, Have: []string{have}}
		}
	}
	if img.RootFS != "" {
		return img, nil
	}
	return s.Images.Prepare(ctx, img.ID.String(), progress)
}
