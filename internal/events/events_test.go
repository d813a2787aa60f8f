// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package events

import (
	"strconv"
	"testing"
	"time"
)

func TestReadersGetAllInOrder(t *testing.T) {
	t.Parallel()
	var b Bus
	b.Publish(Event{ID: "before"})
	r := b.Subscribe(time.Time{})
	defer r.Close()
	for i := range 10 {
		b.Publish(Event{ID: strconv.Itoa(i)})
	}
	for i := range 10 {
		if e := <-r.Events; e.ID != strconv.Itoa(i) || e.Time.IsZero() {
			t.Fatalf("event %d is %+v, want id %d with a time", i, e, i)
		}
	}
}

func TestSinceReplaysWhatIsKept(t *testing.T) {
	t.Parallel()
	var b Bus
	start := time.Unix(1000, 0)
	for i := range kept + 5 {
		b.Publish(Event{ID: strconv.Itoa(i), Time: start.Add(time.Duration(i) * time.Second)})
	}
	r := b.Subscribe(start)
	defer r.Close()
	if e := <-r.Events; e.ID != "5" {
		t.Errorf("the first kept event is %s, want 5: the oldest are dropped", e.ID)
	}
	late := b.Subscribe(start.Add((kept + 4) * time.Second))
	defer late.Close()
	if e := <-late.Events; e.ID != strconv.Itoa(kept+4) {
		t.Errorf("since the last event gave %s first, want the last", e.ID)
	}
}

func TestSlowReaderIsCutOffAndOthersAreNot(t *testing.T) {
	t.Parallel()
	var b Bus
	slow, quick := b.Subscribe(time.Time{}), b.Subscribe(time.Time{})
	defer quick.Close()
	for i := range buffered + 1 {
		b.Publish(Event{ID: strconv.Itoa(i)})
		<-quick.Events
	}
	got := 0
	for range slow.Events {
		got++
	}
	if got != buffered || !slow.Lost() {
		t.Errorf("slow reader got %d events, lost %v; want %d, true", got, slow.Lost(), buffered)
	}
	if quick.Lost() {
		t.Error("the quick reader is said to have lost events")
	}
	slow.Close() // a second end is no panic
}
