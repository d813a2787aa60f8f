// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package vmmtest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/micropod/micropod/internal/vmm"
)

// etherType is that of the test guest's frames.
const etherType = 0x88b5

// testInterfaces: devices come in order and with their MACs, frames pass both ways, a clone
// is joined to another TAP in another namespace, and nothing holds a TAP after the end.
func testInterfaces(ctx context.Context, t *testing.T, s *suite) {
	if os.Geteuid() != 0 {
		t.Skip("only root makes network namespaces")
	}
	first, second := newNamespace(t, "tap0"), newNamespace(t, "tap7")
	shape := func(n *namespace, taps ...string) func(*vmm.Config) {
		return func(c *vmm.Config) {
			c.UID, c.GID = 123456, 123456
			c.NetNS, c.Interfaces = n.path, interfaces(taps...)
		}
	}
	wrong := s.config(t, shape(first, "tap1"))
	if m, err := s.engine.Start(ctx, wrong); err == nil {
		s.hold(t, m)
		t.Error("started with a TAP that is not there")
	}
	s.checkGone(t, vmm.Record{Engine: s.engine.Name(), ID: wrong.ID, Dir: wrong.Dir, Cgroup: "/micropod-vmmtest/" + wrong.ID})
	m := s.start(ctx, t, shape(first, "tap0", ""))
	for i, want := range interfaces("tap0", "") {
		if got := m.ask(ctx, t, "mac eth%d", i); got != want.MAC.String() {
			t.Errorf("eth%d has MAC address %s, want %s", i, got, want.MAC)
		}
	}
	if got := m.ask(ctx, t, "exchange eth0 hello"); got != "tap0 heard hello" {
		t.Errorf("the guest heard %q", got)
	}
	first.wantHolds(t, m.Record().PID)
	dir := s.snapshot(ctx, t, m)
	s.wantNoRestore(ctx, t, "one interface less", s.config(t, shape(first, "tap0")), dir)
	clone := s.restore(ctx, t, dir, shape(second, "tap7", ""))
	if got := clone.ask(ctx, t, "exchange eth0 again"); got != "tap7 heard again" {
		t.Errorf("the clone's guest heard %q", got)
	}
	second.wantHolds(t, clone.Record().PID)
	s.end(t, m)
	again := s.restore(ctx, t, dir, shape(first, "tap0", ""))
	if got := again.ask(ctx, t, "exchange eth0 free"); got != "tap0 heard free" {
		t.Errorf("on a TAP that was used before the guest heard %q", got)
	}
}

// interfaces gives each TAP a MAC by its place.
func interfaces(taps ...string) []vmm.Interface {
	list := make([]vmm.Interface, len(taps))
	for i, tap := range taps {
		list[i] = vmm.Interface{TAP: tap, MAC: net.HardwareAddr{2, 0, 0, 0, 0, byte(i + 1)}}
	}
	return list
}

// namespace is a network namespace with one TAP, on which every frame of the test guest is
// answered.
type namespace struct{ path string }

// newNamespace lives until the test's end.
func newNamespace(t *testing.T, tap string) *namespace {
	t.Helper()
	type made struct {
		netns   *os.File
		packets int
		err     error
	}
	done := make(chan made)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends
		netns, packets, err := makeNamespace(tap)
		done <- made{netns, packets, err}
	}()
	m := <-done
	if m.err != nil {
		t.Fatalf("making a network namespace: %v", m.err)
	}
	f := os.NewFile(uintptr(m.packets), "packets") // non-blocking: Close ends a Read
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		answer(f, tap)
	}()
	t.Cleanup(func() {
		f.Close()
		<-answered
		m.netns.Close()
	})
	return &namespace{path: fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), m.netns.Fd())}
}

// makeNamespace returns the namespace and a packet socket on its TAP, which is up.
func makeNamespace(tap string) (_ *os.File, packets int, err error) {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return nil, 0, err
	}
	netns, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, 0, err
	}
	if err := makeTAP(tap); err != nil {
		return nil, 0, errors.Join(err, netns.Close())
	}
	device, err := net.InterfaceByName(tap)
	if err != nil {
		return nil, 0, errors.Join(err, netns.Close())
	}
	protocol := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, etherType))
	packets, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, 0, errors.Join(err, netns.Close())
	}
	if err := unix.Bind(packets, &unix.SockaddrLinklayer{Protocol: protocol, Ifindex: device.Index}); err != nil {
		return nil, 0, errors.Join(err, unix.Close(packets), netns.Close())
	}
	return netns, packets, nil
}

// makeTAP makes one that stays without a process, and brings it up.
func makeTAP(name string) error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		return err
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1); err != nil {
		return err
	}
	socket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(socket)
	request.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, request)
}

// answer returns each frame to its sender, with a text that says who heard it.
func answer(packets *os.File, tap string) {
	frame := make([]byte, 2048)
	for {
		n, err := packets.Read(frame)
		if errors.Is(err, unix.ENETDOWN) {
			continue // nobody held the TAP for a while
		}
		if err != nil {
			return
		}
		if n < 14 {
			continue
		}
		text := strings.TrimRight(string(frame[14:n]), "\x00")
		reply := append([]byte(nil), frame[6:12]...)
		reply = append(reply, 2, 0, 0, 0, 1, 0)
		reply = binary.BigEndian.AppendUint16(reply, etherType)
		packets.Write(append(reply, tap+" heard "+text...)) // a frame lost shows in the guest
	}
}

// wantHolds checks that the process is in the namespace.
func (n *namespace) wantHolds(t *testing.T, pid int) {
	t.Helper()
	want, err := os.Readlink(n.path)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid)); err != nil || got != want {
		t.Errorf("the VMM is in network namespace %q (%v), want %q", got, err, want)
	}
}
