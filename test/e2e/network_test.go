// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// The addresses of worldSetup: this host, and the other one behind the router.
const (
	here4, here6   = "192.0.2.2", "2001:db8:2::2"
	world4, world6 = "203.0.113.5", "2001:db8:5::5"
	routerOut      = "203.0.113.1" // what of this host the world sees
)

// web starts a container that tells whoever comes by HTTP what his address is.
const web = `mkdir -p /www/cgi-bin; printf '#!/bin/sh\necho; echo $REMOTE_ADDR\n' > /www/cgi-bin/who; chmod +x /www/cgi-bin/who; exec httpd -f -p 80 -h /www`

func (h *host) web(t *testing.T, flags ...string) string {
	t.Helper()
	name := h.name(t)
	h.must(t, append(append([]string{"run", "-d", "--name", name}, flags...), "busybox", "sh", "-c", web)...)
	h.await(t, name, "wget -q -O /dev/null http://127.0.0.1/cgi-bin/who")
	return name
}

// shell runs a command of this host, or, with a namespace's name, of another.
func shell(t *testing.T, namespace, command string) (string, error) {
	t.Helper()
	args := []string{"sh", "-c", command}
	if namespace != "" {
		args = append([]string{"ip", "netns", "exec", namespace}, args...)
	}
	out, err := exec.CommandContext(testContext(t), args[0], args[1:]...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// who asks a web for the address that it sees; what goes wrong is told in curl's words.
func who(t *testing.T, namespace, at string) string {
	t.Helper()
	out, err := shell(t, namespace, "curl -g -sS --noproxy '*' --connect-timeout 5 --max-time 20 http://"+at+"/cgi-bin/who")
	if err != nil {
		return "no answer: " + out
	}
	out = strings.TrimSuffix(strings.TrimPrefix(out, "["), "]") // as httpd writes addresses
	return strings.TrimPrefix(out, "::ffff:")
}

// inWorld runs f on a thread that is in another host's namespace.
func inWorld(t *testing.T, f func() error) {
	t.Helper()
	runtime.LockOSThread()
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	other, err := os.Open("/run/netns/world")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := unix.Setns(int(other.Fd()), unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	err = f()
	if back := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); back != nil {
		panic(back) // this thread must not run others
	}
	runtime.UnlockOSThread()
	if err != nil {
		t.Fatal(err)
	}
}

// isRefused tells curl's words for a reset from those for silence.
func isRefused(answer string) bool {
	return strings.Contains(answer, "refused") || strings.Contains(answer, "Couldn't connect") && !strings.Contains(answer, "imeout")
}

// portOf is the port of this host that leads to a container's.
func (h *host) portOf(t *testing.T, name, port string) string {
	t.Helper()
	line, _, _ := strings.Cut(h.must(t, "port", name, port), "\n")
	return line[strings.LastIndexByte(line, ':')+1:]
}

// A web server in a machine, asked from everywhere that there is.
func TestPublishedPorts(t *testing.T) {
	t.Parallel()
	h := shared
	name := h.web(t, "-p", "80", "-p", "127.0.0.1::80")
	port := h.portOf(t, name, "80")
	if out, err := shell(t, "router", "nft add table ip doors && nft 'add chain ip doors in { type nat hook prerouting priority -100; }' && nft add rule ip doors in iifname r1 tcp dport 8080 dnat to "+here4+":"+port); err != nil {
		t.Fatal(out)
	}
	gateway := strings.Split(h.must(t, "exec", name, "ip", "-4", "route", "show", "default"), " ")[2]
	t.Run("answers", func(t *testing.T) {
		for _, test := range []struct{ from, at, want string }{
			{"world", here4 + ":" + port, world4},
			{"world", "[" + here6 + "]:" + port, world6},
			{"world", routerOut + ":8080", world4}, // through the router's translation
			{"", here4 + ":" + port, here4},
			{"", "[" + here6 + "]:" + port, here6},
			{"", "127.0.0.1:" + port, gateway},
			{"", "localhost:" + port, ""},
		} {
			if got := who(t, test.from, test.at); got != test.want && (test.want != "" || strings.Contains(got, "no answer")) {
				t.Errorf("from %q at %s: %q, want %q", test.from, test.at, got, test.want)
			}
		}
		if got := who(t, "", "[::1]:"+port); !strings.Contains(got, ":") || strings.Contains(got, "no answer") {
			t.Errorf("at ::1: %q, want the gateway", got)
		}
	})
	t.Run("owner", func(t *testing.T) {
		r := h.run(t, "run", "--name", h.name(t), "-p", port+":80", "busybox", "true")
		if r.code != 125 || !strings.Contains(r.stderr, "port "+port+"/tcp of the host is published by") || !strings.Contains(r.stderr, name) || r.took > 10*time.Second {
			t.Errorf("a port that a container has:\n%v", r)
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		_, taken, _ := net.SplitHostPort(l.Addr().String())
		r = h.run(t, "run", "--name", h.name(t), "-p", "127.0.0.1:"+taken+":80", "busybox", "true")
		if r.code != 125 || !strings.Contains(r.stderr, fmt.Sprintf("(pid %d)", os.Getpid())) {
			t.Errorf("a port that this process has:\n%v", r)
		}
		if l, err := net.Listen("tcp", ":"+port); err == nil {
			l.Close()
			t.Error("another process can have the port")
		}
	})
	t.Run("gone", func(t *testing.T) {
		h.must(t, "rm", "-f", name)
		if got := who(t, "world", here4+":"+port); !isRefused(got) {
			t.Errorf("after its container: %q", got)
		}
		l, err := net.Listen("tcp", ":"+port)
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
	})
}

// The way to a published port is there when run returns: nobody listens in the container, so its machine refuses, at once.
func TestPublishedPortLeadsToTheMachineWhenRunReturns(t *testing.T) {
	t.Parallel()
	name := shared.detached(t, "-p", "80")
	port := shared.portOf(t, name, "80")
	for _, at := range []string{here4 + ":" + port, "[" + here6 + "]:" + port} {
		began := time.Now()
		if got := who(t, "world", at); !isRefused(got) || time.Since(began) > 4*time.Second {
			t.Errorf("%s: %q after %v", at, got, time.Since(began))
		}
	}
}

// Egress rules on a real machine: by address and by name, changed while it runs, and after its restart.
func TestEgress(t *testing.T) {
	t.Parallel()
	h := shared
	var ttl atomic.Uint32
	ttl.Store(3600)
	asked := nameserver(t, &ttl)
	worldListens(t, ":8081", ":8082")
	name := h.detached(t, "--dns", world4, "--egress", "allow=four.example:8081", "--egress", "allow="+world6+"/tcp", "--egress", "allow=*.short.example")
	h.visitor(t, name)
	reaches := func(at string) bool {
		host, port, _ := strings.Cut(at, " ")
		return h.run(t, "exec", name, "/visitor", "tcp", net.JoinHostPort(host, port)).code == 0
	}
	expect := func(when string, want map[string]bool) {
		t.Helper()
		for at, open := range want {
			if got := reaches(at); got != open {
				t.Errorf("%s: %s is reached: %t, want %t", when, at, got, open)
			}
		}
	}
	expect("before a name was asked for", map[string]bool{world4 + " 8081": false, world6 + " 8081": true, world6 + " 8082": true})
	expect("by name", map[string]bool{"four.example 8081": true, "four.example 8082": false, "other.example 8081": false})
	expect("by the name's address", map[string]bool{world4 + " 8081": true, world4 + " 8082": false})
	if r := h.run(t, "exec", name, "/visitor", "look", "secret-in-a-name.evil.example"); r.code == 0 || asked.Load() != 0 {
		t.Errorf("a name that no rule allows:\n%v", r)
	}
	h.must(t, "update", "--egress", "deny", name)
	expect("denied", map[string]bool{world4 + " 8081": false, world6 + " 8081": false, "four.example 8081": false})
	ttl.Store(2)
	h.must(t, "update", "--egress", "allow=*.short.example", name)
	expect("a short-lived name", map[string]bool{"a.short.example 8082": true})
	deadline := time.Now().Add(20 * time.Second)
	for reaches(world4+" 8082") && time.Now().Before(deadline) {
	}
	expect("after its life", map[string]bool{world4 + " 8082": false})
	expect("asked for again", map[string]bool{"b.short.example 8082": true})
	h.must(t, "restart", "-t", "1", name)
	expect("after a restart", map[string]bool{world6 + " 8081": false, "c.short.example 8082": true})
	h.must(t, "update", "--egress", "allow", name)
	expect("free", map[string]bool{world4 + " 8082": true, world6 + " 8082": true, "other.example 8081": true})
	if r := h.run(t, "run", "--rm", "--egress", "allow=a..b", "busybox", "true"); r.code != 125 || !strings.Contains(r.stderr, "egress rule") || !strings.Contains(r.stderr, "hint: ") {
		t.Errorf("a rule that cannot be:\n%v", r)
	}
}

// worldListens takes connections in the world, and closes them.
func worldListens(t *testing.T, addresses ...string) {
	t.Helper()
	for _, a := range addresses {
		var l net.Listener
		inWorld(t, func() (err error) { l, err = net.Listen("tcp", a); return err })
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				c.Close()
			}
		}()
	}
}

// nameserver answers in the world for all names: A with world4. It counts how often it is asked for evil ones.
func nameserver(t *testing.T, ttl *atomic.Uint32) *atomic.Int32 {
	t.Helper()
	evil := new(atomic.Int32)
	var conn net.PacketConn
	inWorld(t, func() (err error) {
		conn, err = net.ListenPacket("udp", world4+":53")
		return err
	})
	s := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		r := new(dns.Msg).SetReply(q)
		if strings.Contains(q.String(), "evil") {
			evil.Add(1)
		}
		if len(q.Question) == 1 && q.Question[0].Qtype == dns.TypeA {
			r.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: ttl.Load()}, A: net.ParseIP(world4)}}
		}
		_ = w.WriteMsg(r)
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.ActivateAndServe() }()
	t.Cleanup(func() { conn.Close(); <-done })
	return evil
}

// What hostile containers try against their neighbours, other networks and the host.
func TestIsolation(t *testing.T) {
	t.Parallel()
	h := shared
	other := "other-" + h.name(t)
	h.must(t, "network", "create", other)
	t.Cleanup(func() { h.command(t.Context(), nil, "network", "rm", other) })
	victim, stranger := h.web(t), h.web(t, "--network", other)
	evil := h.detached(t, "--cap-add", "NET_ADMIN", "--cap-add", "NET_RAW", "--sysctl", "net.ipv4.ip_forward=1")
	addr := func(name, family string) netip.Addr {
		t.Helper()
		text := h.must(t, "exec", name, "sh", "-c", "ip "+family+" -o addr show dev eth0 scope global | tr -s ' ' | cut -d' ' -f4")
		return netip.MustParsePrefix(text).Addr()
	}
	victim4, victim6, stranger4, stranger6 := addr(victim, "-4"), addr(victim, "-6"), addr(stranger, "-4"), addr(stranger, "-6")
	gateway := netip.MustParseAddr(strings.Split(h.must(t, "exec", evil, "ip", "-4", "route", "show", "default"), " ")[2])
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, hostPort, _ := net.SplitHostPort(l.Addr().String())
	h.visitor(t, evil)
	fetch := func(from, at string) bool {
		return h.run(t, "exec", from, "/visitor", "get", "http://"+at+"/cgi-bin/who").code == 0
	}
	for at, open := range map[string]bool{
		victim4.String(): true, "[" + victim6.String() + "]": true, victim: true, // its neighbour
		stranger4.String(): false, "[" + stranger6.String() + "]": false, stranger: false,
		gateway.String() + ":" + hostPort: false, here4 + ":" + hostPort: false, "[" + here6 + "]:" + hostPort: false,
		"169.254.169.254": false,
	} {
		if got := fetch(evil, at); got != open {
			t.Errorf("a container reaches %s: %t, want %t", at, got, open)
		}
	}

	mac := func(name, device string) net.HardwareAddr {
		t.Helper()
		m, err := net.ParseMAC(strings.TrimSpace(h.must(t, "exec", name, "cat", "/sys/class/net/"+device+"/address")))
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	evilMAC, victimMAC := mac(evil, "eth0"), mac(victim, "eth0")
	frames := forgeries(evilMAC, victimMAC, victim4, gateway)
	before := neighbours(t, h, victim, gateway)
	sink := worldSink(t)
	if r := h.runIn(t, strings.Join(frames, "\n")+"\n", "exec", "-i", evil, "/visitor", "frames"); r.code != 0 {
		t.Fatalf("sending frames:\n%v", r)
	}
	// A true packet after the forged ones: when it has come, they have not.
	h.must(t, "exec", evil, "/visitor", "udp", world4+":9999", "true")
	if got := <-sink; got != "true" {
		t.Errorf("the world got %q", got)
	}
	if after := neighbours(t, h, victim, gateway); after != before {
		t.Errorf("the victim's idea of the network was %q, is %q", before, after)
	}
	if !fetch(evil, victim4.String()) {
		t.Error("the victim is not reached any more")
	}
	// With the victim's addresses as its own it reaches nobody.
	h.must(t, "exec", evil, "sh", "-c", fmt.Sprintf("ip addr flush dev eth0; ip addr add %v/16 dev eth0; ip route add default via %v", victim4, gateway))
	if fetch(evil, gateway.String()+":53") || h.run(t, "exec", evil, "ping", "-c", "1", "-W", "2", gateway.String()).code == 0 {
		t.Error("a container with another's address is answered")
	}
	if r := h.run(t, "exec", victim, "ping", "-c", "1", "-W", "5", gateway.String()); r.code != 0 {
		t.Errorf("whose address was taken is not answered any more:\n%v", r)
	}
	h.must(t, "exec", evil, "sh", "-c", fmt.Sprintf("ip link set eth0 down; ip link set eth0 address %v; ip link set eth0 up; ip route add default via %v || true", victimMAC, gateway))
	if h.run(t, "exec", evil, "ping", "-c", "1", "-W", "2", gateway.String()).code == 0 {
		t.Error("a container with another's MAC is answered")
	}
	if r := h.run(t, "exec", victim, "ping", "-c", "1", "-W", "5", gateway.String()); r.code != 0 {
		t.Errorf("whose MAC was taken is not answered any more:\n%v", r)
	}
}

// neighbours is what a container knows of its gateway: its MAC and its default routes.
func neighbours(t *testing.T, h *host, name string, gateway netip.Addr) string {
	t.Helper()
	h.must(t, "exec", name, "ping", "-c", "1", "-W", "5", gateway.String())
	return h.must(t, "exec", name, "sh", "-c", fmt.Sprintf("ip neigh show %v | grep -oE '([0-9a-f]{2}:){5}[0-9a-f]{2}'; ip route show default; ip -6 route show default", gateway))
}

// worldSink gives what comes first to port 9999 of the world.
func worldSink(t *testing.T) <-chan string {
	t.Helper()
	var conn net.PacketConn
	inWorld(t, func() (err error) {
		conn, err = net.ListenPacket("udp4", world4+":9999")
		return err
	})
	got := make(chan string, 1)
	go func() {
		b := make([]byte, 100)
		_ = conn.SetReadDeadline(time.Now().Add(30 * time.Second))
		n, _, err := conn.ReadFrom(b)
		if err != nil {
			got <- err.Error()
			return
		}
		got <- string(b[:n])
	}()
	t.Cleanup(func() { conn.Close() })
	return got
}

// forgeries are frames that claim what is not so, in hexadecimal digits.
func forgeries(own, victim net.HardwareAddr, victim4, gateway netip.Addr) []string {
	all := net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	eth := func(to, from net.HardwareAddr, kind uint16, payload ...[]byte) string {
		f := append(append(append([]byte{}, to...), from...), byte(kind>>8), byte(kind))
		for _, p := range payload {
			f = append(f, p...)
		}
		return hex.EncodeToString(f)
	}
	arp := func(ip netip.Addr) []byte {
		return append(append(append([]byte{0, 1, 8, 0, 6, 4, 0, 2}, own...), ip.AsSlice()...), append(victim, victim4.AsSlice()...)...)
	}
	udp := func(from, to netip.Addr, source, dest uint16, text string) []byte {
		p := []byte{0x45, 0, 0, byte(28 + len(text)), 0, 0, 0, 0, 64, 17, 0, 0}
		p = append(append(p, from.AsSlice()...), to.AsSlice()...)
		var sum uint32
		for i := 0; i < 20; i += 2 {
			sum += uint32(p[i])<<8 | uint32(p[i+1])
		}
		sum = sum&0xffff + sum>>16
		sum = ^(sum&0xffff + sum>>16)
		p[10], p[11] = byte(sum>>8), byte(sum)
		return append(append(p, byte(source>>8), byte(source), byte(dest>>8), byte(dest), 0, byte(8+len(text)), 0, 0), text...)
	}
	local := append([]byte{0xfe, 0x80, 0, 0, 0, 0, 0, 0, own[0] ^ 2, own[1], own[2], 0xff, 0xfe}, own[3:]...)
	advert := append([]byte{0x60, 0, 0, 0, 0, 16, 58, 255}, local...)
	advert = append(append(advert, 0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1), 134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0)
	var sum uint32 // of the pseudo header and the message (RFC 8200, 8.1)
	for i := 8; i < len(advert); i += 2 {
		sum += uint32(advert[i])<<8 | uint32(advert[i+1])
	}
	sum += 16 + 58
	sum = sum&0xffff + sum>>16
	sum = ^(sum&0xffff + sum>>16)
	advert[42], advert[43] = byte(sum>>8), byte(sum)
	world := netip.MustParseAddr(world4)
	return []string{
		eth(victim, own, 0x0806, arp(gateway)),
		eth(all, own, 0x0806, arp(victim4)),
		eth(all, victim, 0x0806, arp(victim4)),
		eth(all, victim, 0x0800, udp(victim4, world, 1, 9999, "as the victim")),
		eth(all, own, 0x0800, udp(victim4, world, 1, 9999, "with its address")),
		eth(all, own, 0x0800, udp(gateway, world, 1, 9999, "as the gateway")),
		eth(all, own, 0x0800, udp(gateway, netip.MustParseAddr("255.255.255.255"), 67, 68, "an offer")),
		eth(net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}, own, 0x86dd, advert),
	}
}

// visitorProgram is built once.
var visitorProgram = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp(shared.dir, "visitor")
	if err != nil {
		return "", err
	}
	program := filepath.Join(dir, "visitor")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, "./visitor")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building visitor: %w: %s", err, out)
	}
	return program, nil
})

// visitor puts the program into a container.
func (h *host) visitor(t *testing.T, name string) {
	t.Helper()
	program, err := visitorProgram()
	if err != nil {
		t.Fatal(err)
	}
	h.must(t, "cp", program, name+":/visitor")
}

// Metadata on a real machine, and a second network joined and left while it runs.
func TestMetadataAndFurtherNetworks(t *testing.T) {
	t.Parallel()
	h := shared
	file := filepath.Join(t.TempDir(), "metadata.json")
	if err := os.WriteFile(file, []byte(`{"latest": {"meta-data": {"name": "first", "list": [1]}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	back := "back-" + h.name(t)
	h.must(t, "network", "create", back)
	t.Cleanup(func() { h.command(t.Context(), nil, "network", "rm", back) })
	name := h.detached(t, "--mmds", file, "--egress", "deny")
	h.visitor(t, name)
	const service = "http://169.254.169.254"
	get := func(path string) string {
		t.Helper()
		token := h.must(t, "exec", name, "/visitor", "put", service+"/latest/api/token", "X-metadata-token-ttl-seconds:60")
		return h.run(t, "exec", name, "/visitor", "get", service+path, "X-metadata-token:"+token).stdout
	}
	if r := h.run(t, "exec", name, "/visitor", "get", service+"/latest"); r.code == 0 || !strings.Contains(r.stderr, "401") {
		t.Errorf("without a token:\n%v", r)
	}
	for path, want := range map[string]string{"/latest/": "meta-data/", "/latest/meta-data": "list\nname", "/latest/meta-data/name": "first"} {
		if got := get(path); got != want {
			t.Errorf("GET %s: %q, want %q", path, got, want)
		}
	}
	if got := h.must(t, "mmds", "get", name); got != `{"latest":{"meta-data":{"list":[1],"name":"first"}}}` {
		t.Errorf("mmds get: %s", got)
	}
	if r := h.runIn(t, `{"latest":{"meta-data":{"name":"second","list":null}}}`, "mmds", "patch", name, "-"); r.code != 0 || get("/latest/meta-data/name") != "second" {
		t.Errorf("mmds patch:\n%v", r)
	}
	if r := h.runIn(t, `[1]`, "mmds", "set", name, "-"); r.code == 0 || !strings.Contains(r.stderr, "no JSON object") || !strings.Contains(r.stderr, "hint: ") {
		t.Errorf("mmds set of a list:\n%v", r)
	}
	if r := h.run(t, "run", "--rm", "--network", "none", "--mmds", file, "busybox", "true"); r.code != 125 || !strings.Contains(r.stderr, "without a network") {
		t.Errorf("metadata without a network:\n%v", r)
	}
	// Its rules hold on the network that it joins, too: with "network" they let it reach that one's machines.
	peer := h.web(t, "--network", back)
	peer4 := strings.Split(address(t, h, peer), "/")[0]
	fetch := func() bool {
		return h.run(t, "exec", name, "/visitor", "get", "http://"+peer4+"/cgi-bin/who").code == 0
	}
	h.must(t, "update", "--egress", "allow=network", name)
	if fetch() {
		t.Error("a network is reached before it is joined")
	}
	h.must(t, "network", "connect", "--rate-up", "8mbit", back, name)
	if !fetch() {
		t.Error("a network is not reached after it was joined")
	}
	if got := get("/latest/meta-data/name"); got != "second" {
		t.Errorf("metadata after joining a network: %q", got)
	}
	h.must(t, "network", "disconnect", back, name)
	if fetch() {
		t.Error("a network is reached after it was left")
	}
	h.must(t, "restart", "-t", "1", name)
	if got := get("/latest/meta-data/name"); got != "second" {
		t.Errorf("metadata after a restart: %q", got)
	}
}
