// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package link

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// inNamespace runs f on a thread in a new network namespace that has TAP devices of these names.
func inNamespace(t *testing.T, f func(), taps ...string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root makes network namespaces")
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends
		err := unix.Unshare(unix.CLONE_NEWNET)
		for _, name := range taps {
			if err == nil {
				err = makeTAP(name)
			}
		}
		if err == nil {
			f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatalf("making a network namespace: %v", err)
	}
}

// makeTAP makes a TAP that is held, as a machine's is, until the process ends.
func makeTAP(name string) error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	request, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	return unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
}

// state lists what a device has; routes are those of /proc by it.
type state struct {
	up        bool
	mac       string
	mtu       int
	addresses []string
}

func look(t *testing.T, name string) state {
	t.Helper()
	device, err := net.InterfaceByName(name)
	if err != nil {
		t.Error(err)
		return state{}
	}
	s := state{up: device.Flags&net.FlagUp != 0, mac: device.HardwareAddr.String(), mtu: device.MTU}
	addresses, err := device.Addrs()
	if err != nil {
		t.Error(err)
	}
	for _, a := range addresses {
		if !strings.HasPrefix(a.String(), "fe80:") {
			s.addresses = append(s.addresses, a.String())
		}
	}
	return s
}

// routes gives the lines of the IPv4 and IPv6 tables with a gateway, as device and its bytes in hexadecimal.
func routes(t *testing.T) []string {
	t.Helper()
	var found []string
	b, err := os.ReadFile("/proc/thread-self/net/route")
	if err != nil {
		t.Error(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); f[1] == "00000000" && f[2] != "Gateway" {
			found = append(found, f[0]+" "+f[2])
		}
	}
	if b, err = os.ReadFile("/proc/thread-self/net/ipv6_route"); err != nil {
		t.Error(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); f[4] != strings.Repeat("0", 32) {
			found = append(found, f[9]+" "+f[4])
		}
	}
	return found
}

func TestUpAndDown(t *testing.T) {
	t.Parallel()
	inNamespace(t, func() {
		first := Config{
			Index: 0, MAC: []byte{2, 0, 0, 0, 0, 7}, MTU: 1400,
			Addresses: []netip.Prefix{netip.MustParsePrefix("10.1.2.3/24"), netip.MustParsePrefix("fd00::3/64")},
			Gateway4:  netip.MustParseAddr("10.1.2.1"), Gateway6: netip.MustParseAddr("fd00::1"),
		}
		for range 2 { // idempotent
			if err := Up(first); err != nil {
				t.Error(err)
			}
			got := look(t, "eth0")
			if !got.up || got.mac != "02:00:00:00:00:07" || got.mtu != 1400 || !slices.Equal(got.addresses, []string{"10.1.2.3/24", "fd00::3/64"}) {
				t.Errorf("eth0 is %+v", got)
			}
			if got, want := routes(t), []string{"eth0 0102010A", "eth0 fd000000000000000000000000000001"}; !slices.Equal(got, want) {
				t.Errorf("routes %q, want %q", got, want)
			}
		}
		second := Config{Index: 1, Addresses: []netip.Prefix{netip.MustParsePrefix("10.9.0.3/32")}, Gateway4: netip.MustParseAddr("10.8.0.1")}
		if err := Up(second); err != nil {
			t.Errorf("a gateway outside of the prefix: %v", err)
		}
		if got := routes(t); !slices.Contains(got, "eth1 0100080A") || slices.Contains(got, "eth0 0102010A") {
			t.Errorf("routes %q, want the default one by eth1 alone", got)
		}
		for range 2 {
			if err := Down(first); err != nil {
				t.Error(err)
			}
			if got := look(t, "eth0"); got.up || len(got.addresses) != 0 {
				t.Errorf("eth0 is %+v after Down", got)
			}
		}
	}, "eth0", "eth1")
}

func TestUpFails(t *testing.T) {
	t.Parallel()
	inNamespace(t, func() {
		if err := Up(Config{Index: 3}); !errors.Is(err, unix.ENODEV) || !strings.Contains(err.Error(), "eth3") {
			t.Errorf("a device that is not there: %v", err)
		}
		bad := Config{Index: 0, MAC: []byte{1, 0, 0, 0, 0, 1}, Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.2/24")}}
		if err := Up(bad); !errors.Is(err, unix.EADDRNOTAVAIL) || !strings.Contains(err.Error(), "bringing it up") {
			t.Errorf("the MAC of many: %v, want the step and the kernel's answer", err)
		}
		if err := Up(Config{Index: 0, MTU: 20}); !errors.Is(err, unix.EINVAL) {
			t.Errorf("an MTU of 20: %v", err)
		}
	}, "eth0")
}

func TestBroadcast(t *testing.T) {
	t.Parallel()
	for prefix, want := range map[string][]byte{"10.96.0.2/24": {10, 96, 0, 255}, "10.1.2.3/30": {10, 1, 2, 3}, "192.168.0.1/16": {192, 168, 255, 255}} {
		if got := broadcast(netip.MustParsePrefix(prefix)); !bytes.Equal(got, want) {
			t.Errorf("broadcast(%s) = %v, want %v", prefix, got, want)
		}
	}
}

// TestReadAnswers: whatever comes, nothing is read past its end.
func TestReadAnswers(t *testing.T) {
	t.Parallel()
	list := []message{{step: "only"}}
	good := []byte{20, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xfb, 0xff, 0xff, 0xff}
	done, errs := read(good, list)
	if !done || len(errs) != 1 || !errors.Is(errs[0], unix.EIO) {
		t.Errorf("read = %v, %v, want EIO and the end", done, errs)
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 0x40
		read(bad, list)
		read(good[:i], list)
	}
	if done, errs := read(append([]byte{200}, good[1:]...), list); !done || len(errs) == 0 {
		t.Error("an answer longer than what came was taken")
	}
}

func TestPrepare(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "net/ipv6/conf/eth0/accept_ra")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("1"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Prepare(dir); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "0" {
		t.Errorf("accept_ra is %q (%v), want 0", b, err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "net/ipv4/ping_group_range"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := Prepare(dir); err == nil {
		t.Error("a setting that cannot be written was passed over")
	}
}
