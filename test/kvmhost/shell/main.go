// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Command shell opens a shell in a KVM host made in software, with micropod, Firecracker and its jailer installed.
// `make kvmhost-shell` calls it. Arguments are run instead of the shell.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/micropod/micropod/test/kvmhost"
)

func main() {
	bin := flag.String("bin", "bin", "folder of micropod's programs")
	put := flag.String("put", "", "more files: PATH-THERE=PATH-HERE, separated by commas")
	flag.Parse()
	code, err := run(*bin, *put, flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, "kvmhost:", err)
		code = 125
	}
	os.Exit(code)
}

func run(bin, put string, args []string) (int, error) {
	ctx := context.Background()
	began := time.Now()
	h, err := kvmhost.Start(ctx)
	if err != nil {
		return 0, err
	}
	defer h.Close()
	files := kvmhost.Files{}
	for _, name := range []string{"micropod", "micropodd", "micropod-agent"} {
		files["/usr/local/bin/"+name] = filepath.Join(bin, name)
	}
	for _, pair := range strings.FieldsFunc(put, func(r rune) bool { return r == ',' }) {
		there, here, _ := strings.Cut(pair, "=")
		files[there] = here
	}
	if err := h.Put(ctx, files); err != nil {
		return 0, err
	}
	c := kvmhost.Command{Args: args, Dir: "/root", Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	if len(args) > 0 {
		c.Stdin = nil
		return h.Run(ctx, c)
	}
	fmt.Fprintf(os.Stderr, "KVM host up after %v; micropod, firecracker and jailer are installed\n", time.Since(began).Round(time.Millisecond))
	return onTerminal(ctx, h, c)
}

// onTerminal gives the shell the caller's terminal, if there is one.
func onTerminal(ctx context.Context, h *kvmhost.Host, c kvmhost.Command) (int, error) {
	c.Args = []string{"/bin/sh", "-l"}
	in := int(os.Stdin.Fd())
	if !term.IsTerminal(in) {
		return h.Run(ctx, c)
	}
	columns, rows, err := term.GetSize(in)
	if err != nil {
		return 0, err
	}
	c.TTY, c.Rows, c.Columns = true, uint16(rows), uint16(columns)
	c.Env = []string{"TERM=" + os.Getenv("TERM")}
	c.Stdin = io.Reader(os.Stdin)
	before, err := term.MakeRaw(in)
	if err != nil {
		return 0, err
	}
	defer term.Restore(in, before)
	return h.Run(ctx, c)
}
