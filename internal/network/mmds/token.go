// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package mmds

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"time"
)

// Lifetimes that a token may be asked for.
const (
	minTTL = time.Second
	maxTTL = 6 * time.Hour
)

// mint makes tokens and knows its own again: their end, sealed with a key of this process. So there is nothing to remember,
// however many a guest asks for.
type mint struct{ key [32]byte }

func newMint() *mint {
	m := new(mint)
	_, _ = rand.Read(m.key[:]) // never fails (crypto/rand)
	return m
}

const endBytes = 8

func (m *mint) seal(end []byte) []byte {
	h := hmac.New(sha256.New, m.key[:])
	h.Write(end)
	return h.Sum(nil)
}

// token is valid until end.
func (m *mint) token(end time.Time) string {
	b := binary.BigEndian.AppendUint64(nil, uint64(end.UnixMilli()))
	return base64.StdEncoding.EncodeToString(append(b, m.seal(b)...))
}

func (m *mint) valid(token string, now time.Time) bool {
	b, err := base64.StdEncoding.DecodeString(token)
	if err != nil || len(b) != endBytes+sha256.Size {
		return false
	}
	return hmac.Equal(b[endBytes:], m.seal(b[:endBytes])) && now.UnixMilli() < int64(binary.BigEndian.Uint64(b))
}
