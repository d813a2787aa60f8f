// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Package mmds serves a machine its metadata at 169.254.169.254, in the way of Firecracker's metadata service, version 2
// (docs/mmds/mmds-user-guide.md of Firecracker): a guest asks for a token with PUT /latest/api/token, and with it for
// parts of a JSON document. Parse and Merge are what the host's side needs of documents.
//
// The service is a process of its own for each machine that asked for one, so that it outlives the daemon: Main, with an
// inherited socket that listens in the machine's slot and an inherited file that holds the document. Write changes that
// file; the next question sees it. The package is a leaf; it trusts its arguments and none of what guests send.
package mmds

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/netutil"
	"golang.org/x/sys/unix"
)

// Verb is the word by which a program is told to be the service, if it can be others too.
const Verb = "metadata-server"

// Address is where guests find the service; its port is 80.
const Address = "169.254.169.254"

// What a guest can take of the process.
const (
	maxConns   = 16
	maxHeaders = 8 << 10
	maxTime    = 10 * time.Second
)

// Main serves until the process is killed. The first argument says whose it is, and is there to be found by; the second and
// third are inherited descriptors, of the socket and of the file.
func Main(ctx context.Context, args []string) error {
	if len(args) != 3 {
		return errors.New("wanted are a label, a socket's and a file's descriptor")
	}
	var files []*os.File
	for _, arg := range args[1:] {
		fd, err := strconv.ParseUint(arg, 10, 16)
		if err != nil {
			return fmt.Errorf("descriptor %q: %w", arg, err)
		}
		files = append(files, os.NewFile(uintptr(fd), "descriptor "+arg))
	}
	l, err := net.FileListener(files[0])
	if err != nil {
		return fmt.Errorf("the socket: %w", err)
	}
	return Serve(ctx, l, files[1])
}

// Serve answers on l from the document in the file until ctx ends. It closes l.
func Serve(ctx context.Context, l net.Listener, document *os.File) error {
	s := &http.Server{
		Handler:     &service{document: document, mint: newMint(), now: time.Now},
		ReadTimeout: maxTime, WriteTimeout: maxTime, IdleTimeout: maxTime, MaxHeaderBytes: maxHeaders,
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError), // what guests do wrong is theirs
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	err := s.Serve(netutil.LimitListener(l, maxConns))
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// Write puts a document into the file in the place of what was there. Readers see one or the other.
func Write(file *os.File, document []byte) error {
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX); err != nil {
		return err
	}
	defer unix.Flock(int(file.Fd()), unix.LOCK_UN)
	// A writer that dies in between leaves what is no JSON, which nobody is given.
	if err := file.Truncate(0); err != nil {
		return err
	}
	_, err := file.WriteAt(document, 0)
	return err
}

// service answers one machine.
type service struct {
	document *os.File
	mint     *mint
	now      func() time.Time
}

// read gives the document as it is now.
func (s *service) read() (any, error) {
	if err := unix.Flock(int(s.document.Fd()), unix.LOCK_SH); err != nil {
		return nil, err
	}
	defer unix.Flock(int(s.document.Fd()), unix.LOCK_UN)
	text, err := io.ReadAll(io.NewSectionReader(s.document, 0, MaxBytes+1))
	if err != nil {
		return nil, err
	}
	return decode(text)
}

// Headers of tokens; each has the name that EC2 gave it, too.
var (
	tokenHeaders = []string{"X-Metadata-Token", "X-Aws-Ec2-Metadata-Token"}
	ttlHeaders   = []string{"X-Metadata-Token-Ttl-Seconds", "X-Aws-Ec2-Metadata-Token-Ttl-Seconds"}
)

const tokenPath = "/latest/api/token"

func header(r *http.Request, names []string) string {
	for _, name := range names {
		if v := r.Header.Get(name); v != "" {
			return v
		}
	}
	return ""
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	for strings.Contains(path, "//") {
		path = strings.ReplaceAll(path, "//", "/")
	}
	switch r.Method {
	case http.MethodGet:
		s.get(w, r, path)
	case http.MethodPut:
		s.put(w, r, path)
	default:
		w.Header().Set("Allow", "GET, PUT")
		say(w, http.StatusMethodNotAllowed, "Not allowed HTTP method.")
	}
}

func (s *service) put(w http.ResponseWriter, r *http.Request, path string) {
	ttl := header(r, ttlHeaders)
	seconds, err := strconv.ParseUint(ttl, 10, 32)
	lifetime := time.Duration(seconds) * time.Second
	switch {
	case r.Header.Get("X-Forwarded-For") != "": // somebody was made to ask for another
		say(w, http.StatusBadRequest, "Invalid header. Reason: Unsupported header name. Key: X-Forwarded-For")
	case path != tokenPath:
		say(w, http.StatusNotFound, "Resource not found: "+r.URL.Path+".")
	case ttl == "":
		say(w, http.StatusBadRequest, "Token time to live value not found. Use `X-metadata-token-ttl-seconds` header to specify the token's lifetime.")
	case err != nil:
		say(w, http.StatusBadRequest, "Invalid header. Reason: Invalid value. Key:X-metadata-token-ttl-seconds; Value:"+ttl)
	case lifetime < minTTL || lifetime > maxTTL:
		say(w, http.StatusBadRequest, fmt.Sprintf("Invalid time to live value provided for token: %d. Please provide a value between 1 and 21600 seconds.", seconds))
	default:
		say(w, http.StatusOK, s.mint.token(s.now().Add(lifetime)))
	}
}

func (s *service) get(w http.ResponseWriter, r *http.Request, path string) {
	token := header(r, tokenHeaders)
	if token == "" {
		say(w, http.StatusUnauthorized, "No MMDS token provided. Use `X-metadata-token` header to specify the session token.")
		return
	}
	if !s.mint.valid(token, s.now()) {
		say(w, http.StatusUnauthorized, "MMDS token not valid.")
		return
	}
	document, err := s.read()
	if err != nil {
		say(w, http.StatusServiceUnavailable, "The metadata cannot be read now.")
		return
	}
	value, err := find(document, path)
	if err != nil {
		say(w, http.StatusNotFound, "Resource not found: "+r.URL.Path+".")
		return
	}
	if strings.HasPrefix(r.Header.Get("Accept"), "application/json") {
		text, err := encode(value)
		if err != nil {
			say(w, http.StatusInternalServerError, err.Error())
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(text) // a client that is gone needs no answer
		return
	}
	text, err := list(value)
	if err != nil {
		say(w, http.StatusNotImplemented, err.Error())
		return
	}
	say(w, http.StatusOK, text)
}

func say(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain")
	w.WriteHeader(code)
	_, _ = io.WriteString(w, text)
}
