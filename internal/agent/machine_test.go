// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestRestartEndsTheMachine(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]bool{
		"quiet panic=-1 reboot=t\n": true,
		"reboot=k":                  true,
		"quiet panic=-1":            false,
		"noreboot=t xreboot=k":      false,
		"":                          false,
	} {
		if got := restartEnds(line); got != want {
			t.Errorf("restartEnds(%q) = %v, want %v", line, got, want)
		}
	}
}

func TestFindPort(t *testing.T) {
	t.Parallel()
	class := t.TempDir()
	find := func(want string) {
		t.Helper()
		if got, err := findPort(class); err != nil || got != want {
			t.Errorf("findPort = %q, %v, want %q", got, err, want)
		}
	}
	find("")
	for dev, name := range map[string]string{"vport0p1": "org.qemu.guest_agent.0\n", "vport0p2": "micropod2\n", "vport0p3": ""} {
		makePort(t, class, dev, name)
	}
	find("")
	if err := os.Mkdir(filepath.Join(class, "vport0p4"), 0o755); err != nil { // its name is not told yet
		t.Fatal(err)
	}
	find("")
	makePort(t, class, "vport0p4", "micropod\n")
	find("vport0p4")
}

func makePort(t *testing.T, class, dev, name string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(class, dev), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(class, dev, "name"), []byte(name), 0o444); err != nil {
		t.Fatal(err)
	}
}

func TestDriveNames(t *testing.T) {
	t.Parallel()
	for slot, want := range map[uint32]string{0: "/dev/vda", 1: "/dev/vdb", maxSlot: "/dev/vdz"} {
		if got := drive(slot); got != want {
			t.Errorf("drive(%d) = %q, want %q", slot, got, want)
		}
	}
}

func TestBootStepsNameWhatIsMissing(t *testing.T) {
	t.Parallel()
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := loadModules(root, "modules"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("loadModules without a list = %v", err)
	}
	if err := root.WriteFile("modules", []byte("/no/such/module.ko\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := loadModules(root, "modules"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("loadModules of a missing module = %v", err)
	}
	if _, err := openPort("/no/such/port"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("openPort = %v", err)
	}
	if err := writeFile("/no/such/file", "1"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("writeFile = %v", err)
	}
}

// A pipe that breaks for good must end the agent, and with it the machine; a host that leaves must not.
func TestServeTellsBrokenPipesFromHostsThatLeave(t *testing.T) {
	t.Parallel()
	s := NewServer(Config{})
	broken := errors.New("device is gone")
	err := s.Serve(context.Background(), &script{errs: []error{io.EOF, unix.ECONNRESET, os.ErrDeadlineExceeded, broken}})
	if !errors.Is(err, broken) {
		t.Errorf("Serve = %v, want %v after the hosts that left", err, broken)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Serve(ctx, &script{}); !errors.Is(err, context.Canceled) {
		t.Errorf("Serve = %v, want its context's error", err)
	}
}

// script gives connections whose reads fail, each in its way.
type script struct{ errs []error }

func (s *script) Next() (io.ReadWriteCloser, error) {
	if len(s.errs) == 0 {
		return nil, errors.New("no connection left")
	}
	c := failing{s.errs[0]}
	s.errs = s.errs[1:]
	return c, nil
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error)    { return 0, f.err }
func (f failing) Write(p []byte) (int, error) { return len(p), nil }
func (f failing) Close() error                { return nil }

// A port is a descriptor that polls; what the kernel's driver does without a host is tested in a machine.
func TestPortBetweenSessions(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "port")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := openPort(path) // a fifo opened for both is its own other end
	if err != nil {
		t.Fatal(err)
	}
	defer p.file.Close()
	for range 3 {
		c, err := p.Next()
		if err != nil {
			t.Fatal(err)
		}
		read, first := make(chan error, 1), make(chan struct{})
		go func() {
			b := make([]byte, 5)
			if n, err := c.Read(b); err != nil || string(b[:n]) != "hello" {
				t.Errorf("first read = %q, %v", b[:n], err)
			}
			close(first)
			_, err := c.Read(b) // waits until Close
			read <- err
		}()
		if _, err := c.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		<-first
		c.Close()
		if err := <-read; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read of a closed session = %v", err)
		}
	}
}
