// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package imagetest

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Push uploads the image to the registry as REPOSITORY:TAG, and returns the
// reference to pull it by.
func (r *Registry) Push(b *Built, repository, tag string) (string, error) {
	for _, blob := range b.Blobs() {
		if err := r.PushBlob(repository, blob); err != nil {
			return "", err
		}
	}
	if err := r.PushManifest(repository, b.Digest().String(), b.Manifest, b.ManifestType); err != nil {
		return "", err
	}
	return r.Addr + "/" + repository + ":" + tag, r.PushManifest(repository, tag, b.Manifest, b.ManifestType)
}

// PushIndex uploads an index of images as REPOSITORY:TAG.
func (r *Registry) PushIndex(repository, tag string, images ...*Built) (string, error) {
	var list []ocispec.Descriptor
	for _, b := range images {
		if _, err := r.Push(b, repository, "part-"+b.Digest().Encoded()[:12]); err != nil {
			return "", err
		}
		list = append(list, b.Descriptor())
	}
	return r.Addr + "/" + repository + ":" + tag, r.PushManifest(repository, tag, Index(list...), ocispec.MediaTypeImageIndex)
}

// PushManifest uploads a manifest or index under a tag or its digest.
func (r *Registry) PushManifest(repository, id string, b []byte, mediaType string) error {
	return r.send(http.MethodPut, r.URL+"/v2/"+repository+"/manifests/"+id, mediaType, b)
}

// PushBlob uploads a blob (distribution specification, "Pushing a blob
// monolithically": POST, then PUT).
func (r *Registry) PushBlob(repository string, b []byte) error {
	req, err := http.NewRequest(http.MethodPost, r.URL+"/v2/"+repository+"/blobs/uploads/", nil)
	if err != nil {
		return err
	}
	resp, err := r.do(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted {
		return fmt.Errorf("starting an upload: %s", resp.Status)
	}
	to, err := resp.Request.URL.Parse(resp.Header.Get("Location"))
	if err != nil {
		return err
	}
	sep := "?"
	if strings.Contains(to.String(), "?") {
		sep = "&"
	}
	return r.send(http.MethodPut, to.String()+sep+"digest="+url.QueryEscape(digest.FromBytes(b).String()), "application/octet-stream", b)
}

func (r *Registry) send(method, to, mediaType string, b []byte) error {
	req, err := http.NewRequest(method, to, bytes.NewReader(b))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", mediaType)
	resp, err := r.do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		answer, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
		return fmt.Errorf("%s %s: %s: %s", method, to, resp.Status, answer)
	}
	return nil
}

func (r *Registry) do(req *http.Request) (*http.Response, error) {
	if r.User != "" {
		req.SetBasicAuth(r.User, r.Password)
	}
	return r.client.Do(req)
}
