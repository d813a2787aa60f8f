// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Package channel is the guest channel: what runs on the byte pipe between
// the daemon and a machine's agent. Both sides import it; it knows no engine.
//
// The pipe may be a virtio-serial port, which has no notion of a connection:
// bytes meant for an earlier session may still be in it. So each session begins
// with a handshake around a fresh nonce of the host's, and both sides throw away
// whatever comes before it:
//
//	host  -> guest   "mpod-hello\n" nonce[16]      repeated until echoed
//	guest -> host    "mpod-echo!\n" nonce[16]
//	host  -> guest   "mpod-start\n" nonce[16]
//
// A guest answers each nonce once and, when it sees a hello with another nonce
// instead of the start, answers that one. A guest that still waits for
// the rest of an earlier session's frame would take hellos for its body: to a
// hello without an answer for a second the host adds padding of one greatest
// frame, which no yamux takes for a header. After the start both sides speak yamux,
// the host as client. The host opens every stream and sends no frame of more than
// 32 KiB; the guest opens none and never pings. A stream begins with a header of
// at most 1 KiB: one byte of kind, then a 16 bit length and that many bytes of
// the kind's own fields.
//
//	kind   fields                                             then
//	rpc    none                                               ttrpc, api/agent/v1; one such stream a session
//	stdin  container, exec, host's count of bytes sent        guest answers with 8 bytes: how many bytes of input it
//	                                                          has taken so far; then the host's bytes from there on; a
//	                                                          half-close is the end of input
//	stdout container, exec, offset                            guest answers with 8 bytes: the offset it begins at (the
//	stderr                                                    oldest it still has, if later than asked for); then its
//	                                                          bytes, a half-close at the end of output. The host sends
//	                                                          back, on the same stream, 8-byte big-endian offsets: all
//	                                                          below is kept safe and may be forgotten
//	cover  none                                               the agent's coverage counters, in test builds only: see
//	                                                          internal/agent
//	files  none                                               messages of api/agent/v1 (FilesMessage), each behind its
//	                                                          length: an act on a container's file system
//
// Output is kept by the agent in a ring of bounded size for each stream. When
// it is full of bytes that are not acknowledged, the writer blocks.
// A stream's header that cannot be served is answered by closing the stream.
//
// A string field is one byte of length and its bytes, a count or offset 8 bytes,
// all numbers big-endian.
//
// Dial is the host's way in, Accept the guest's. What a guest can make the host
// hold is bounded by Dial's session: see Host.
package channel
