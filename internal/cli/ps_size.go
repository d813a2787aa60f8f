// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"time"

	"connectrpc.com/connect"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

// creationSpan are the times that filters before= and since= leave; zero: no bound.
type creationSpan struct{ after, before time.Time }

func (s creationSpan) holds(c *v1.Container) bool {
	at := c.CreatedAt.AsTime()
	return (s.after.IsZero() || at.After(s.after)) && (s.before.IsZero() || at.Before(s.before))
}

// psSpan asks when the containers that the filters name were made. Of several the widest counts, as with docker.
func (a *app) psSpan(ctx context.Context, f filterSet) (s creationSpan, err error) {
	for _, name := range f["since"] {
		c, err := a.container(ctx, name)
		if err != nil {
			return s, err
		}
		if at := c.CreatedAt.AsTime(); s.after.IsZero() || at.Before(s.after) {
			s.after = at
		}
	}
	for _, name := range f["before"] {
		c, err := a.container(ctx, name)
		if err != nil {
			return s, err
		}
		if at := c.CreatedAt.AsTime(); at.After(s.before) {
			s.before = at
		}
	}
	return s, nil
}

// containerSizes are what containers take on disk: their own, and with their image. By id, in bytes.
func (a *app) containerSizes(ctx context.Context) (own, whole map[string]int64, err error) {
	answer, err := a.client.system.DiskUsage(ctx, connect.NewRequest(&v1.DiskUsageRequest{}))
	if err != nil {
		return nil, nil, err
	}
	images := map[string]int64{}
	for _, i := range answer.Msg.ImageList {
		images[i.Id] = i.RootfsBytes
	}
	own, whole = map[string]int64{}, map[string]int64{}
	for _, c := range answer.Msg.ContainerList {
		own[c.Id] = c.DiskBytes
	}
	list, err := a.client.containers.List(ctx, connect.NewRequest(&v1.ListContainersRequest{All: true}))
	if err != nil {
		return nil, nil, err
	}
	for _, c := range list.Msg.Containers {
		whole[c.Id] = own[c.Id] + images[c.ImageId]
	}
	return own, whole, nil
}

// addSizes fills in what rows of ps take on disk, in docker's form.
func (a *app) addSizes(ctx context.Context, rows []containerRow) error {
	own, whole, err := a.containerSizes(ctx)
	if err != nil {
		return err
	}
	for i := range rows {
		id := rows[i].id
		rows[i].Size = bytesSize(own[id]) + " (virtual " + bytesSize(whole[id]) + ")"
	}
	return nil
}
