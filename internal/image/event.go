// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package image

// State is what is happening to one part of an image.
type State string

// The states of a part, in the order in which they come.
const (
	StateResolving   State = "resolving"   // asking the registry for manifests
	StateWaiting     State = "waiting"     // a layer whose turn has not come
	StateDownloading State = "downloading" // bytes arrive; Done and Total are set
	StateRetrying    State = "retrying"    // broken off, goes on shortly; Message says why
	StateReading     State = "reading"     // an archive is read
	StateConverting  State = "converting"  // the root file system is made
	StateExists      State = "exists"      // nothing to do, the store has it
	StateDone        State = "done"
)

// Event is progress of one part of an image on its way into the store.
// Between two events of a part others may have been skipped; its last one
// never is.
type Event struct {
	// ID names the part: a layer's first 12 hexadecimal digits, "manifest",
	// "archive" or "rootfs".
	ID    string
	State State
	// Done and Total are bytes; Total is 0 where it is not known.
	Done, Total int64
	Message     string
}
