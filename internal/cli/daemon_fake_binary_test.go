// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/pflag"

	"github.com/micropod/micropod/internal/config"
)

// fakeMicropodd is the daemon's binary for tests of how it is started. FAKE_DAEMON says how
// it fails, if it does; each start leaves a line in RUN_DIR/starts.
func fakeMicropodd(args []string) int {
	if len(args) > 0 && args[0] == "convert" {
		return fakeConvert(args[1:])
	}
	var options config.Options
	flags := pflag.NewFlagSet("micropodd", pflag.ContinueOnError)
	options.AddFlags(flags)
	if err := flags.Parse(args); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	c, err := options.Load()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	note(filepath.Join(c.RunDir, "starts"), fmt.Sprintln(args))
	note(c.PIDFile(), fmt.Sprintln(os.Getpid()))
	switch os.Getenv("FAKE_DAEMON") {
	case "dies":
		fmt.Fprintln(os.Stderr, "first words\nmicropodd: the data folder is \x1b[31mlocked")
		return 1
	case "deaf":
		waitForTerm()
		return 0
	}
	d := newFakeDaemon(c.RunDir)
	if err := d.listen(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	waitForTerm()
	d.end()
	return 0
}

func waitForTerm() {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGTERM)
	<-c
}

// note appends a line to a file; two processes may do so at once.
func note(path, line string) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		panic(err)
	}
	defer f.Close()
	_, _ = f.WriteString(line)
}

// fakeConvert writes its command line to the output file, or fails as the input says.
func fakeConvert(args []string) int {
	flags := pflag.NewFlagSet("convert", pflag.ContinueOnError)
	output := flags.String("output", "", "")
	flags.String("platform", "", "")
	flags.String("config", "", "")
	if err := flags.Parse(args); err != nil || flags.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "micropodd: bad words", args)
		return 2
	}
	switch flags.Arg(0) {
	case "bad.tar":
		fmt.Fprintln(os.Stderr, "micropod: bad.tar is no image")
		return 3
	case "killed.tar":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	note(*output, fmt.Sprintln(args))
	return 0
}
