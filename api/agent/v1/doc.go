// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Package agentv1 holds the messages and the ttrpc service between the daemon
// and the agent in a guest, generated from agent.proto (`make generate`). The
// byte pipe below them is package channel's. internal/guest calls the service,
// internal/agent serves it; nothing else needs the package but those that
// read its plain messages (internal/machine, internal/container).
package agentv1
