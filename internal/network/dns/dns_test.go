// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testPort = 10053

// nextHost numbers the loopback addresses that tests use, one for each server.
var nextHost atomic.Uint32

func freshAddr() netip.Addr {
	n := nextHost.Add(1)
	return netip.AddrFrom4([4]byte{127, 77, byte(n >> 8), byte(n)})
}

// start serves on a loopback address of its own until the test's end.
func start(t *testing.T, c Config) netip.AddrPort {
	t.Helper()
	addr := freshAddr()
	c.Addrs, c.Port = []netip.Addr{addr}, testPort
	if c.Clients == nil {
		c.Clients = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	}
	if c.Names == nil {
		c.Names = NewZone()
	}
	s, err := Start(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return netip.AddrPortFrom(addr, testPort)
}

// upstream is a resolver that answers with what handle says.
func upstream(t *testing.T, handle func(q *dns.Msg, stream bool) *dns.Msg) netip.AddrPort {
	t.Helper()
	at := netip.AddrPortFrom(freshAddr(), testPort)
	for _, network := range []string{"udp", "tcp"} {
		up := make(chan struct{})
		s := &dns.Server{Addr: at.String(), Net: network, NotifyStartedFunc: func() { close(up) }}
		s.Handler = dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
			if r := handle(q, network == "tcp"); r != nil {
				_ = w.WriteMsg(r)
			}
		})
		done := make(chan struct{})
		go func() {
			defer close(done)
			if err := s.ListenAndServe(); err != nil {
				t.Error(err)
			}
		}()
		<-up
		t.Cleanup(func() { _ = s.Shutdown(); <-done })
	}
	return at
}

func resolvers(list ...netip.AddrPort) func(netip.Addr) []netip.AddrPort {
	return func(netip.Addr) []netip.AddrPort { return list }
}

func query(t *testing.T, at netip.AddrPort, network, name string, kind uint16) *dns.Msg {
	t.Helper()
	q := new(dns.Msg).SetQuestion(dns.Fqdn(name), kind)
	q.SetEdns0(maxDatagram, false)
	c := dns.Client{Net: network, Timeout: 10 * time.Second}
	r, _, err := c.Exchange(q, at.String())
	if err != nil {
		t.Fatalf("asking for %s over %s: %v", name, network, err)
	}
	return r
}

func records(t *testing.T, lines ...string) []dns.RR {
	t.Helper()
	var list []dns.RR
	for _, line := range lines {
		rr, err := dns.NewRR(line)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, rr)
	}
	return list
}

// texts gives the data of records, sorted.
func texts(list []dns.RR) []string {
	var out []string
	for _, rr := range list {
		out = append(out, strings.TrimPrefix(rr.String(), rr.Header().String()))
	}
	slices.Sort(out)
	return out
}

func TestZoneAnswers(t *testing.T) {
	t.Parallel()
	z := NewZone()
	web4, web6, db := netip.MustParseAddr("10.1.0.2"), netip.MustParseAddr("fd00::2"), netip.MustParseAddr("10.1.0.3")
	z.Set("1", []string{"web", "Web.front", "www"}, []netip.Addr{web4, web6})
	z.Set("2", []string{"db", "www"}, []netip.Addr{db})
	z.Set("3", []string{"gone"}, []netip.Addr{netip.MustParseAddr("10.1.0.4")})
	z.Remove("3")
	at := start(t, Config{Names: z, Clients: prefixes("127.0.0.0/8", "10.1.0.0/16", "fd00::/64")})
	for _, test := range []struct {
		name  string
		kind  uint16
		rcode int
		want  []string
	}{
		{"web", dns.TypeA, 0, []string{"10.1.0.2"}},
		{"WEB", dns.TypeAAAA, 0, []string{"fd00::2"}},
		{"web.front", dns.TypeA, 0, []string{"10.1.0.2"}},
		{"www", dns.TypeA, 0, []string{"10.1.0.2", "10.1.0.3"}},
		{"db", dns.TypeAAAA, 0, nil},
		{"db", dns.TypeMX, 0, nil},
		{"gone", dns.TypeA, dns.RcodeNameError, nil},
		{"example.org", dns.TypeA, dns.RcodeNameError, nil}, // no resolvers
		{"localhost", dns.TypeA, 0, []string{"127.0.0.1"}},
		{"a.localhost", dns.TypeAAAA, 0, []string{"::1"}},
		{"2.0.1.10.in-addr.arpa", dns.TypePTR, 0, []string{"web."}},
		{"9.0.1.10.in-addr.arpa", dns.TypePTR, dns.RcodeNameError, nil},
		{"2." + strings.Repeat("0.", 27) + "0.0.d.f.ip6.arpa", dns.TypePTR, 0, []string{"web."}},
		{"1." + strings.Repeat("0.", 31) + "ip6.arpa", dns.TypePTR, 0, []string{"localhost."}},
		{"2.0.1.in-addr.arpa", dns.TypePTR, dns.RcodeNameError, nil},
		{"x.y.z.a.in-addr.arpa", dns.TypePTR, dns.RcodeNameError, nil},
		{"1.2.ip6.arpa", dns.TypePTR, dns.RcodeNameError, nil},
	} {
		for _, network := range []string{"udp", "tcp"} {
			r := query(t, at, network, test.name, test.kind)
			if got := texts(r.Answer); r.Rcode != test.rcode || !slices.Equal(got, test.want) {
				t.Errorf("%s %s over %s: %s %q, want %s %q", test.name, dns.TypeToString[test.kind], network,
					dns.RcodeToString[r.Rcode], got, dns.RcodeToString[test.rcode], test.want)
			}
		}
	}
	firsts := map[string]bool{}
	for range 4 {
		firsts[query(t, at, "udp", "www", dns.TypeA).Answer[0].String()] = true
	}
	if len(firsts) != 2 {
		t.Errorf("the first address of two is always %v", firsts)
	}
	z.Remove("1")
	z.Remove("nobody")
	if _, known := z.Lookup(netip.Addr{}, "web"); known || len(z.names) != 2 || len(z.addrs) != 1 {
		t.Errorf("after Remove: %v, %v", z.names, z.addrs)
	}
}

func TestForwards(t *testing.T) {
	t.Parallel()
	long := records(t)
	for i := range 200 {
		long = append(long, records(t, fmt.Sprintf("long.example. 60 IN A 192.0.%d.%d", i/100, i%100))...)
	}
	real := upstream(t, func(q *dns.Msg, stream bool) *dns.Msg {
		r := new(dns.Msg).SetReply(q)
		switch q.Question[0].Name {
		case "long.example.":
			if r.Answer = long; !stream {
				r.Answer, r.Truncated = nil, true
			}
		case "other.example.":
			r.Question[0].Name = "evil.example."
			r.Answer = records(t, "evil.example. 60 IN A 192.0.2.66")
		case "none.example.":
			r.Rcode = dns.RcodeNameError
		default:
			r.Answer = records(t, q.Question[0].Name+" 60 IN A 192.0.2.1")
		}
		return r
	})
	dead := netip.AddrPortFrom(freshAddr(), testPort) // nobody listens: refused at once
	broken := upstream(t, func(q *dns.Msg, _ bool) *dns.Msg { return new(dns.Msg).SetRcode(q, dns.RcodeServerFailure) })
	at := start(t, Config{Resolvers: resolvers(dead, broken, real)})
	for _, network := range []string{"udp", "tcp"} {
		if r := query(t, at, network, "example.org", dns.TypeA); !slices.Equal(texts(r.Answer), []string{"192.0.2.1"}) {
			t.Errorf("%s: %v", network, r)
		}
		if r := query(t, at, network, "none.example", dns.TypeA); r.Rcode != dns.RcodeNameError {
			t.Errorf("%s: a name that does not exist: %v", network, r)
		}
		if r := query(t, at, network, "other.example", dns.TypeA); r.Rcode != dns.RcodeServerFailure {
			t.Errorf("%s: the answer to another question was taken: %v", network, r)
		}
	}
	if r := query(t, at, "udp", "long.example", dns.TypeA); !r.Truncated || len(r.Answer) == 0 {
		t.Errorf("%d records over UDP, truncated %t, want some and that there are more", len(r.Answer), r.Truncated)
	}
	if r := query(t, at, "tcp", "long.example", dns.TypeA); r.Truncated || len(r.Answer) != len(long) {
		t.Errorf("%d records over TCP, want %d", len(r.Answer), len(long))
	}
	at = start(t, Config{Resolvers: resolvers(dead, broken)})
	r := query(t, at, "udp", "example.org", dns.TypeA)
	if r.Rcode != dns.RcodeServerFailure || !strings.Contains(r.String(), "no resolver of the host answers") {
		t.Errorf("without a resolver that answers: %v", r)
	}
}

// ruleBook lets all but one name pass and notes what it is told.
type ruleBook struct {
	mu   sync.Mutex
	told []string
}

func (b *ruleBook) Allow(_ netip.Addr, name string) (bool, string) {
	return name != "blocked.example", "rule 3 denies it"
}

func (b *ruleBook) Answered(client netip.Addr, name string, addrs []netip.Addr, ttl time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.told = append(b.told, fmt.Sprint(client, " ", name, " ", addrs, " ", ttl))
}

func TestPolicy(t *testing.T) {
	t.Parallel()
	real := upstream(t, func(q *dns.Msg, _ bool) *dns.Msg {
		r := new(dns.Msg).SetReply(q)
		r.Answer = records(t, "Www.example. 300 IN CNAME cdn.example.", "other.example. 5 IN A 192.0.2.9",
			"cdn.example. 20 IN A 192.0.2.1", "cdn.example. 30 IN A 192.0.2.2")
		return r
	})
	book := new(ruleBook)
	at := start(t, Config{Resolvers: resolvers(real), Policy: book})
	r := query(t, at, "udp", "blocked.example", dns.TypeA)
	if r.Rcode != dns.RcodeRefused || !strings.Contains(r.String(), "rule 3 denies it") {
		t.Errorf("a blocked name: %v", r)
	}
	query(t, at, "udp", "WWW.example", dns.TypeA)
	query(t, at, "udp", "nothing.example", dns.TypeA)
	if want := []string{"127.0.0.1 www.example [192.0.2.1 192.0.2.2] 20s"}; !slices.Equal(book.told, want) {
		t.Errorf("told %q, want %q", book.told, want)
	}
}

// loop of aliases ends.
func TestFollowLoop(t *testing.T) {
	t.Parallel()
	r := &dns.Msg{Answer: records(t, "a. 1 IN CNAME b.", "b. 1 IN CNAME a.")}
	if addrs, _ := follow(r, "a"); len(addrs) != 0 {
		t.Error(addrs)
	}
}

func TestRefuses(t *testing.T) {
	t.Parallel()
	at := start(t, Config{})
	for name, test := range map[string]struct {
		spoil func(*dns.Msg)
		want  int
	}{
		"zone transfer": {func(q *dns.Msg) { q.Question[0].Qtype = dns.TypeAXFR }, dns.RcodeRefused},
		"other class":   {func(q *dns.Msg) { q.Question[0].Qclass = dns.ClassCHAOS }, dns.RcodeRefused},
		"update":        {func(q *dns.Msg) { q.Opcode = dns.OpcodeUpdate }, dns.RcodeNotImplemented},
		"no question":   {func(q *dns.Msg) { q.Question = nil }, dns.RcodeFormatError},
		"two questions": {func(q *dns.Msg) { q.Question = append(q.Question, q.Question[0]) }, dns.RcodeFormatError},
	} {
		q := new(dns.Msg).SetQuestion("web.", dns.TypeA)
		test.spoil(q)
		c := dns.Client{Net: "tcp", Timeout: 10 * time.Second}
		r, _, err := c.Exchange(q, at.String())
		if err != nil || r.Rcode != test.want {
			t.Errorf("%s: %v, %v, want %s", name, r, err, dns.RcodeToString[test.want])
		}
	}
}

// send gives bytes to the server and returns what comes back before a good question's answer does.
func send(t *testing.T, at netip.AddrPort, datagrams ...[]byte) (answers int) {
	t.Helper()
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(at))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	last := new(dns.Msg).SetQuestion("localhost.", dns.TypeA)
	last.Id = 4711
	good, err := last.Pack()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range datagrams {
		if _, err := conn.Write(d); err != nil {
			t.Fatal(err)
		}
	}
	buffer := make([]byte, 4096)
	for range 100 {
		if _, err := conn.Write(good); err != nil {
			t.Fatal(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		for {
			n, err := conn.Read(buffer)
			if err != nil {
				break
			}
			if binary.BigEndian.Uint16(buffer) == 4711 && n > 12 {
				return answers
			}
			answers++
		}
	}
	t.Fatal("the server does not answer any more")
	return 0
}

func TestGarbage(t *testing.T) {
	t.Parallel()
	at := start(t, Config{})
	answer, err := new(dns.Msg).SetReply(new(dns.Msg).SetQuestion("a.", dns.TypeA)).Pack()
	if err != nil {
		t.Fatal(err)
	}
	if n := send(t, at, nil, []byte("short"), answer, append([]byte{1, 2, 0x80}, make([]byte, 20)...)); n != 0 {
		t.Errorf("%d answers to what is no question", n)
	}
	unreadable := append([]byte{1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}, 63, 'x')
	packets, err := net.Dial("udp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer packets.Close()
	if _, err := packets.Write(unreadable); err != nil {
		t.Fatal(err)
	}
	_ = packets.SetReadDeadline(time.Now().Add(10 * time.Second))
	buffer := make([]byte, 512)
	if n, err := packets.Read(buffer); err != nil || n < 12 || buffer[0] != 1 || buffer[1] != 2 || buffer[3]&15 != dns.RcodeFormatError {
		t.Errorf("a question that cannot be read is answered with %x, %v, want FORMERR", buffer[:n], err)
	}
	conn, err := net.Dial("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte{0xff, 0xff}); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(idleLimit / 2))
	if n, err := conn.Read(make([]byte, 1)); n != 0 || os.IsTimeout(err) {
		t.Errorf("after the announcement of 64 KiB: %d bytes, %v, want the end", n, err)
	}
}

func TestStrangersHearNothing(t *testing.T) {
	t.Parallel()
	at := start(t, Config{Clients: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}})
	c := dns.Client{Timeout: 100 * time.Millisecond}
	if r, _, err := c.Exchange(new(dns.Msg).SetQuestion("localhost.", dns.TypeA), at.String()); err == nil {
		t.Errorf("a stranger was told %v", r)
	}
	c = dns.Client{Timeout: 5 * time.Second, Net: "tcp"}
	if r, _, err := c.Exchange(new(dns.Msg).SetQuestion("localhost.", dns.TypeA), at.String()); err == nil || os.IsTimeout(err) {
		t.Errorf("a stranger was told %v (%v), want the end of the connection", r, err)
	}
}

// TestBounds: one client that asks without end, over a resolver that does not answer, leaves room for others.
func TestBounds(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{}, 2*maxInFlight)
	silent := upstream(t, func(*dns.Msg, bool) *dns.Msg { asked <- struct{}{}; return nil })
	at := start(t, Config{Resolvers: resolvers(silent)})
	conn, err := net.Dial("udp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for i := range 3 * maxInFlightClient {
		b, err := new(dns.Msg).SetQuestion(fmt.Sprintf("n%d.", i), dns.TypeA).Pack()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	for range maxInFlightClient {
		<-asked
	}
	other := &net.Dialer{LocalAddr: &net.UDPAddr{IP: net.IP{127, 99, 0, 1}}, Timeout: 10 * time.Second}
	c := dns.Client{Dialer: other, Timeout: 10 * time.Second}
	if _, _, err := c.Exchange(new(dns.Msg).SetQuestion("localhost.", dns.TypeA), at.String()); err != nil {
		t.Errorf("another client: %v", err)
	}
	if n := len(asked); n > 0 {
		t.Errorf("%d questions of one client were in flight at once, at most %d may be", maxInFlightClient+n, maxInFlightClient)
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	at := start(t, Config{})
	var open []net.Conn
	for range maxConnsClient + 1 {
		conn, err := net.Dial("tcp", at.String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		open = append(open, conn)
	}
	_ = open[maxConnsClient].SetReadDeadline(time.Now().Add(idleLimit / 2))
	if _, err := open[maxConnsClient].Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
		t.Errorf("connection %d: %v, want the end", maxConnsClient+1, err)
	}
}

func TestClientsRate(t *testing.T) {
	t.Parallel()
	c := newClients()
	a, now := netip.MustParseAddr("10.0.0.1"), time.Now()
	take := func(now time.Time) (n int) {
		for range 2 * burstClient {
			if c.take(a, now) {
				c.giveBack(a)
				n++
			}
		}
		return n
	}
	if n := take(now); n != burstClient {
		t.Errorf("%d at first, want %d", n, burstClient)
	}
	if n := take(now.Add(time.Second)); n != rateClient {
		t.Errorf("%d after a second, want %d", n, rateClient)
	}
	for i := range 2 * maxIdle {
		b := netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})
		c.take(b, now)
		c.giveBack(b)
	}
	if len(c.all) > maxIdle {
		t.Errorf("%d clients are remembered", len(c.all))
	}
}

func TestStartFails(t *testing.T) {
	t.Parallel()
	at := start(t, Config{})
	for _, addr := range []netip.Addr{at.Addr(), netip.MustParseAddr("192.0.2.1")} {
		if _, err := Start(Config{Addrs: []netip.Addr{freshAddr(), addr}, Port: testPort, Names: NewZone()}); err == nil || !strings.Contains(err.Error(), addr.String()) {
			t.Errorf("listening on %s: %v", addr, err)
		}
	}
}

func TestHost(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "resolv.conf")
	h := NewHost(path)
	if len(h.Resolvers())+len(h.Search()) != 0 {
		t.Error("a file that is not there gives resolvers")
	}
	write := func(text string, at time.Time) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	write("nameserver 127.0.0.53\nnameserver fe80::1%eth0\nnameserver bad\nsearch Lan.example. b\n", time.Unix(1, 0))
	if got := fmt.Sprint(h.Resolvers(), h.Search()); got != "[127.0.0.53:53 [fe80::1%eth0]:53] [lan.example b]" {
		t.Errorf("read %s", got)
	}
	write("nameserver 192.0.2.1\n", time.Unix(2, 0))
	if got := fmt.Sprint(h.Resolvers(), h.Search()); got != "[192.0.2.1:53] []" {
		t.Errorf("read again: %s", got)
	}
}

// FuzzAnswer: whatever a client sends is answered, if at all, by something that can be read and fits.
func FuzzAnswer(f *testing.F) {
	q := new(dns.Msg).SetQuestion("web.example.", dns.TypeA)
	q.SetEdns0(100, true)
	for _, m := range []*dns.Msg{q, new(dns.Msg).SetAxfr("a."), new(dns.Msg).SetUpdate("a."), new(dns.Msg).SetQuestion("1.0.0.127.in-addr.arpa.", dns.TypePTR)} {
		b, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, false)
		f.Add(b[:len(b)-3], true)
	}
	z := NewZone()
	z.Set("1", []string{"web.example"}, []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("fd00::2")})
	s := &Server{Config: Config{Names: z, Clients: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}}
	f.Fuzz(func(t *testing.T, question []byte, stream bool) {
		b := s.answer(context.Background(), netip.MustParseAddr("10.0.0.3"), question, stream)
		if b == nil {
			return
		}
		r := new(dns.Msg)
		if err := r.Unpack(b); err != nil || !r.Response || r.Id != binary.BigEndian.Uint16(question) {
			t.Errorf("answer %x to %x: %v", b, question, err)
		}
		if !stream && len(b) > maxDatagram {
			t.Errorf("an answer of %d bytes", len(b))
		}
	})
}

// FuzzAdapt: whatever a resolver sends, what goes on to the client is its question's answer.
func FuzzAdapt(f *testing.F) {
	q := new(dns.Msg).SetQuestion("a.example.", dns.TypeA)
	good := new(dns.Msg).SetReply(q)
	good.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: "a.example.", Rrtype: dns.TypeA, Class: 1}, A: net.IP{1, 2, 3, 4}}}
	b, err := good.Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, answer []byte) {
		r := new(dns.Msg)
		if r.Unpack(answer) != nil {
			return
		}
		adapted, err := adapt(q, question(q), r)
		if err != nil {
			return
		}
		follow(adapted, "a.example")
		if out := pack(q, adapted, false); len(out) > dns.MinMsgSize || adapted.Id != q.Id {
			t.Errorf("%d bytes with id %d", len(out), adapted.Id)
		}
	})
}

func prefixes(list ...string) (out []netip.Prefix) {
	for _, p := range list {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}
