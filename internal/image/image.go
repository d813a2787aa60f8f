// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Package image keeps OCI images: it pulls them from registries, imports them
// from archives and folders, and makes of each one the read-only root file
// system image that machines boot from.
//
// Open the one Store of a data folder; Pull, Import or ImportPath bring images
// in, Get, List and Acquire find them, Tag, Remove and Prune change what is
// kept; Close at the end. A Store is safe for many goroutines. Whoever starts
// a machine from an image calls Acquire and releases it once Config.Users
// names that machine, so that the image cannot be removed in between.
//
// On disk the store is an OCI image layout that other tools can read
// (oci-layout, index.json, blobs/), with ingest/ for what is half made and
// rootfs/ for the root file systems, which are named by chain ID: images of
// equal layers share one. Every file is complete under its final name, so a
// kill at any moment loses at most the work in progress.
//
// Archives, folders and registries are hostile: JSON is bounded, digests and
// sizes are checked while bytes are written, names inside archives are never
// used as paths. Converting layers is the caller's ConvertFunc, which checks
// the layers' diff IDs.
//
// internal/server, internal/container and internal/cli use it; internal/rootfs
// and the engines must not.
package image

import (
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Image is one image in the store. It is a copy; changing it changes nothing.
type Image struct {
	// ID is the digest of the configuration, as Docker's image ID is.
	ID digest.Digest
	// Digest and MediaType are the manifest's.
	Digest    digest.Digest
	MediaType string
	// Names are normalised tags ("docker.io/library/busybox:latest"), sorted.
	Names []string
	// Given are those among Names that the import gave that returns the image.
	Given []string
	// RepoDigests are "name@digest" under which the image was pulled, sorted;
	// the digest may be that of an index around the manifest.
	RepoDigests []string
	// Config is the image configuration; Config.RootFS.DiffIDs has one entry
	// per layer.
	Config ocispec.Image
	// Health is the image's HEALTHCHECK, nil when it has none.
	Health *Health
	// Layers are the manifest's, lowest first.
	Layers []ocispec.Descriptor
	// Size is what manifest, configuration and layers take as stored, in bytes.
	Size int64
	// Created is when the image was built, zero if it does not say.
	Created time.Time

	// RootFS is the path of the root file system image, empty when it is not
	// there (see Store.Prepare).
	RootFS       string
	RootFSDigest digest.Digest
	RootFSSize   int64

	// Problem says why the stored image cannot be used, empty when it can. Only
	// ID, Digest, Names and RepoDigests are set beside it.
	Problem string
}
