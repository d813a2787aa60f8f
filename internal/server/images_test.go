// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

func TestImages(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	up := w.images.Import(ctx)
	body := plainTar(t)
	if err := up.Send(&v1.ImportImageRequest{Options: &v1.ImportOptions{Reference: "one"}, Data: body[:100]}); err != nil {
		t.Fatal(err)
	}
	for rest := body[100:]; len(rest) > 0; rest = rest[min(len(rest), 1000):] {
		if err := up.Send(&v1.ImportImageRequest{Data: rest[:min(len(rest), 1000)]}); err != nil {
			t.Fatal(err)
		}
	}
	in, err := up.CloseAndReceive()
	if err != nil || len(in.Msg.Images) != 1 {
		t.Fatalf("Import gave %v, %v", in, err)
	}
	if _, err := w.images.Tag(ctx, connect.NewRequest(&v1.TagImageRequest{Image: "one", Reference: "two"})); err != nil {
		t.Fatal(err)
	}
	list, err := w.images.List(ctx, connect.NewRequest(&v1.ListImagesRequest{}))
	if err != nil || len(list.Msg.Images) != 1 || len(list.Msg.Images[0].Names) != 2 || list.Msg.Images[0].Config != nil {
		t.Errorf("List gave %v, %v; want one image with two names", list, err)
	}
	got, err := w.images.Get(ctx, connect.NewRequest(&v1.GetImageRequest{Image: "two"}))
	if err != nil || len(got.Msg.Image.Config) == 0 || got.Msg.Image.Platform == "" || len(got.Msg.Image.Layers) != 1 {
		t.Errorf("Get gave %v, %v; want configuration, platform, layer", got, err)
	}
	removed, err := w.images.Remove(ctx, connect.NewRequest(&v1.RemoveImageRequest{Image: "one"}))
	if err != nil || len(removed.Msg.Untagged) != 1 || len(removed.Msg.Deleted) != 0 {
		t.Errorf("Remove of one name gave %v, %v", removed, err)
	}
	pruned, err := w.images.Prune(ctx, connect.NewRequest(&v1.PruneImagesRequest{All: true}))
	if err != nil || len(pruned.Msg.Deleted) != 1 || pruned.Msg.FreedBytes == 0 {
		t.Errorf("Prune gave %v, %v", pruned, err)
	}
	_, err = w.images.Get(ctx, connect.NewRequest(&v1.GetImageRequest{Image: "two"}))
	wantError(t, err, connect.CodeNotFound, "image_not_found")
}

func TestImageRequestsAreChecked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	_, err := w.images.Get(ctx, connect.NewRequest(&v1.GetImageRequest{}))
	wantError(t, err, connect.CodeInvalidArgument, "invalid_request")
	_, err = w.images.Tag(ctx, connect.NewRequest(&v1.TagImageRequest{Image: "x"}))
	wantError(t, err, connect.CodeInvalidArgument, "invalid_request")
	_, err = w.images.Tag(ctx, connect.NewRequest(&v1.TagImageRequest{Image: "x", Reference: "A B"}))
	wantError(t, err, connect.CodeInvalidArgument, "invalid_reference")
	_, err = w.images.Remove(ctx, connect.NewRequest(&v1.RemoveImageRequest{}))
	wantError(t, err, connect.CodeInvalidArgument, "invalid_request")
	_, err = w.images.Import(ctx).CloseAndReceive()
	wantError(t, err, connect.CodeInvalidArgument, "invalid_request")

	up := w.images.Import(ctx)
	if err := up.Send(&v1.ImportImageRequest{Options: &v1.ImportOptions{Reference: "x"}, Data: []byte("no archive at all")}); err != nil {
		t.Fatal(err)
	}
	_, err = up.CloseAndReceive()
	if code := connect.CodeOf(err); code != connect.CodeDataLoss && code != connect.CodeFailedPrecondition {
		t.Errorf("Import of nonsense gave %v", err)
	}
	for ref, code := range map[string]string{"": "invalid_request", "UPPER CASE": "invalid_reference"} {
		down, err := w.images.Pull(ctx, connect.NewRequest(&v1.PullImageRequest{Reference: ref, Auth: &v1.RegistryAuth{Username: "u"}}))
		if err == nil {
			for down.Receive() {
			}
			err = down.Err()
			_ = down.Close()
		}
		wantError(t, err, connect.CodeInvalidArgument, code)
	}
}

func TestSaveGivesWhatImportTakes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	saved := w.mustImport(t, "one")
	down, err := w.images.Save(ctx, connect.NewRequest(&v1.SaveImagesRequest{Images: []string{"one"}}))
	if err != nil {
		t.Fatal(err)
	}
	var archive []byte
	for down.Receive() {
		archive = append(archive, down.Msg().Data...)
	}
	if err := down.Err(); err != nil {
		t.Fatal(err)
	}
	other := newWorld(t)
	up := other.images.Import(ctx)
	for first := true; len(archive) > 0; first = false {
		piece := archive[:min(len(archive), 1<<10)]
		r := &v1.ImportImageRequest{Data: piece}
		if first {
			r.Options = &v1.ImportOptions{}
		}
		if err := up.Send(r); err != nil {
			t.Fatal(err)
		}
		archive = archive[len(piece):]
	}
	in, err := up.CloseAndReceive()
	if err != nil || len(in.Msg.Images) != 1 || in.Msg.Images[0].Id != saved.Id || len(in.Msg.Images[0].Names) != 1 {
		t.Errorf("importing what was saved gave %v, %v; want %s by one name", in, err, saved.Id)
	}
	for name, code := range map[string]string{"absent": "image_not_found", "": "invalid_request"} {
		down, err := w.images.Save(ctx, connect.NewRequest(&v1.SaveImagesRequest{Images: []string{name}}))
		if err == nil {
			for down.Receive() {
			}
			err = down.Err()
		}
		wantError(t, err, connect.CodeOf(err), code)
	}
}

func TestHistory(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	img := w.mustImport(t, "one")
	got, err := w.images.History(t.Context(), connect.NewRequest(&v1.ImageHistoryRequest{Image: "one"}))
	if err != nil || len(got.Msg.Entries) != 1 || got.Msg.Entries[0].Layer != img.Layers[0] || got.Msg.Entries[0].SizeBytes == 0 {
		t.Errorf("History gave %v, %v; want one step with the layer %s", got, err, img.Layers[0])
	}
	_, err = w.images.History(t.Context(), connect.NewRequest(&v1.ImageHistoryRequest{Image: "absent"}))
	wantError(t, err, connect.CodeNotFound, "image_not_found")
	_, err = w.images.History(t.Context(), connect.NewRequest(&v1.ImageHistoryRequest{}))
	wantError(t, err, connect.CodeInvalidArgument, "invalid_request")
}

func TestPruneDryAndFiltered(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.mustImport(t, "one")
	prune := func(r *v1.PruneImagesRequest) int {
		t.Helper()
		r.All = true
		got, err := w.images.Prune(t.Context(), connect.NewRequest(r))
		if err != nil {
			t.Fatal(err)
		}
		return len(got.Msg.Deleted)
	}
	for _, c := range []struct {
		why  string
		r    *v1.PruneImagesRequest
		want int
	}{
		{"a dry run removes nothing", &v1.PruneImagesRequest{DryRun: true}, 1},
		{"it has no such label", &v1.PruneImagesRequest{Labels: []*v1.LabelFilter{{Key: "keep"}}}, 0},
		{"it was built before", &v1.PruneImagesRequest{Until: timestamppb.New(time.Now()), DryRun: true}, 1},
		{"without the label it fits", &v1.PruneImagesRequest{Labels: []*v1.LabelFilter{{Key: "keep", Negate: true}}}, 1},
	} {
		if got := prune(c.r); got != c.want {
			t.Errorf("%s: pruned %d, want %d", c.why, got, c.want)
		}
	}
	_, err := w.images.Prune(t.Context(), connect.NewRequest(&v1.PruneImagesRequest{Labels: []*v1.LabelFilter{{}}}))
	wantError(t, err, connect.CodeInvalidArgument, "invalid_request")
}

func TestFitLabels(t *testing.T) {
	t.Parallel()
	value := "1"
	have := map[string]string{"a": "1", "b": "2"}
	for _, c := range []struct {
		filters []*v1.LabelFilter
		want    bool
	}{
		{nil, true},
		{[]*v1.LabelFilter{{Key: "a"}}, true},
		{[]*v1.LabelFilter{{Key: "a", Value: &value}, {Key: "b"}}, true},
		{[]*v1.LabelFilter{{Key: "b", Value: &value}}, false},
		{[]*v1.LabelFilter{{Key: "c"}}, false},
		{[]*v1.LabelFilter{{Key: "c", Negate: true}}, true},
		{[]*v1.LabelFilter{{Key: "a", Value: &value, Negate: true}}, false},
		{[]*v1.LabelFilter{{Key: "b", Value: &value, Negate: true}}, true},
	} {
		if got := fitLabels(have, c.filters); got != c.want {
			t.Errorf("fitLabels of %v is %v, want %v", c.filters, got, c.want)
		}
	}
}

// TestDiskUsage: an image that nobody uses can be reclaimed whole, a container that runs cannot.
func TestDiskUsage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.mustImport(t, "one")
	made, err := w.vms.CreateVM(t.Context(), connect.NewRequest(&v1.CreateVMRequest{NoStart: true, Config: &v1.VMConfig{}}))
	if err != nil {
		t.Fatal(err)
	}
	w.owned.machine = made.Msg.Vm.Id
	answer, err := w.system.DiskUsage(t.Context(), connect.NewRequest(&v1.DiskUsageRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	u := answer.Msg
	if u.Images.Total != 1 || u.Images.Active != 0 || u.Images.SizeBytes == 0 || u.Images.ReclaimableBytes != u.Images.SizeBytes {
		t.Errorf("images: %v", u.Images)
	}
	if len(u.ImageList) != 1 || u.ImageList[0].SizeBytes != u.Images.SizeBytes || len(u.ImageList[0].Names) != 1 {
		t.Errorf("image list: %v", u.ImageList)
	}
	if u.RootFilesystems.Total != 1 {
		t.Errorf("root file systems: %v", u.RootFilesystems)
	}
	if l := u.ContainerLogs; l.Total != 1 || l.Active != 1 || l.SizeBytes != 4096 || l.ReclaimableBytes != 0 {
		t.Errorf("logs: %v, want those of one that runs", l)
	}
	if len(u.ContainerList) != 1 || u.ContainerList[0].LogBytes != 4096 || u.ContainerDisks.Total != 1 {
		t.Errorf("containers: %v", u.ContainerList)
	}
	if u.BootCache.Total == 0 {
		t.Errorf("boot cache: %v, want what lies in its folder", u.BootCache)
	}
}

// mustImport brings the plain tar in by a name.
func (w *world) mustImport(t *testing.T, name string) *v1.Image {
	t.Helper()
	up := w.images.Import(t.Context())
	if err := up.Send(&v1.ImportImageRequest{Options: &v1.ImportOptions{Reference: name}, Data: plainTar(t)}); err != nil {
		t.Fatal(err)
	}
	in, err := up.CloseAndReceive()
	if err != nil || len(in.Msg.Images) != 1 {
		t.Fatalf("Import gave %v, %v", in, err)
	}
	return in.Msg.Images[0]
}
