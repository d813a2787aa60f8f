// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"os"

	"connectrpc.com/connect"

	v1 "github.com/micropod/micropod/api/micropod/v1"
	"github.com/micropod/micropod/internal/container"
	"github.com/micropod/micropod/internal/diskuse"
	"github.com/micropod/micropod/internal/image"
)

// DiskUsage measures what is below the data folder.
func (s *system) DiskUsage(context.Context, *connect.Request[v1.DiskUsageRequest]) (*connect.Response[v1.DiskUsageResponse], error) {
	usage, err := s.c.Images.DiskUsage()
	if err != nil {
		return nil, err
	}
	answer := &v1.DiskUsageResponse{}
	answer.Images, answer.RootFilesystems = imageSumsToWire(usage)
	for _, u := range usage.Images {
		answer.ImageList = append(answer.ImageList, imageUsageToWire(u))
	}
	answer.ContainerDisks, answer.ContainerLogs = &v1.DiskSum{}, &v1.DiskSum{}
	for _, c := range s.c.Containers.List(container.Filter{All: true}) {
		one := s.measure(c)
		answer.ContainerList = append(answer.ContainerList, one)
		addTo(answer.ContainerDisks, one.DiskBytes, one.Running)
		addTo(answer.ContainerLogs, one.LogBytes, one.Running)
	}
	answer.BootCache = s.bootCache()
	return connect.NewResponse(answer), nil
}

// measure takes a container that is just being removed for an empty one.
func (s *system) measure(c container.Info) *v1.ContainerDiskUsage {
	disk, _ := s.c.Machines.DiskUsage(c.MachineID)
	logs, _ := s.c.Containers.LogUsage(c.ID)
	return &v1.ContainerDiskUsage{
		Id:        c.ID,
		Name:      c.Name,
		Image:     c.Config.Image,
		Running:   c.Running(),
		DiskBytes: disk,
		LogBytes:  logs,
	}
}

func addTo(sum *v1.DiskSum, bytes int64, active bool) {
	sum.Total++
	sum.SizeBytes += bytes
	if active {
		sum.Active++
		return
	}
	sum.ReclaimableBytes += bytes
}

// bootCache counts files: one guest kernel or initramfs each. All are made again when missing.
func (s *system) bootCache() *v1.DiskSum {
	sum := &v1.DiskSum{SizeBytes: diskuse.Of(s.c.BootCache)}
	if files, err := os.ReadDir(s.c.BootCache); err == nil {
		sum.Total, sum.Active = int32(len(files)), int32(len(files))
	}
	return sum
}

func imageSumsToWire(u image.Usage) (images, rootfs *v1.DiskSum) {
	images = &v1.DiskSum{
		Total:            int32(len(u.Images)),
		SizeBytes:        u.Blobs.Size,
		ReclaimableBytes: u.Blobs.Reclaimable,
	}
	for _, i := range u.Images {
		if len(i.Users) > 0 {
			images.Active++
		}
	}
	return images, &v1.DiskSum{
		Total:            int32(u.RootFSCount),
		Active:           int32(u.RootFSActive),
		SizeBytes:        u.RootFS.Size,
		ReclaimableBytes: u.RootFS.Reclaimable,
	}
}

func imageUsageToWire(u image.ImageUsage) *v1.ImageDiskUsage {
	return &v1.ImageDiskUsage{
		Id:          string(u.Image.ID),
		Names:       u.Image.Names,
		CreatedAt:   timeToWire(u.Image.Created),
		SizeBytes:   u.Blobs,
		RootfsBytes: u.RootFS,
		SharedBytes: u.Shared,
		Containers:  int32(len(u.Users)),
	}
}
