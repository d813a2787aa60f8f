// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Command twin tells, as JSON, all in which machines of one template must differ; then, for each line
// it reads, its clock in nanoseconds.
package main

import (
	"bufio"
	"crypto/ecdh"
	crand "crypto/rand"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"time"
)

func main() {
	who := map[string]string{
		"urandom":    fmt.Sprintf("%x", read("/dev/urandom", 16)),
		"uuid":       string(read("/proc/sys/kernel/random/uuid", 36)),
		"boot id":    string(read("/proc/sys/kernel/random/boot_id", 36)),
		"getrandom":  crand.Text(),
		"math/rand":  fmt.Sprint(rand.Uint64()), // seeded by the kernel when the program began
		"host name":  hostname(),
		"AT_RANDOM":  auxiliary(),
		"map's seed": mapOrder(),
	}
	key, err := ecdh.X25519().GenerateKey(crand.Reader) // as TLS makes for each connection
	check(err)
	who["TLS key"] = fmt.Sprintf("%x", key.PublicKey().Bytes())
	nics, err := net.Interfaces()
	check(err)
	for _, n := range nics {
		if len(n.HardwareAddr) > 0 && n.Flags&net.FlagUp != 0 {
			who["MAC of "+n.Name] = n.HardwareAddr.String()
		}
	}
	check(json.NewEncoder(os.Stdout).Encode(who))
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		fmt.Println(time.Now().UnixNano())
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "twin:", err)
		os.Exit(1)
	}
}

func read(path string, n int) []byte {
	f, err := os.Open(path)
	check(err)
	defer f.Close()
	b := make([]byte, n)
	_, err = f.Read(b)
	check(err)
	return b
}

func hostname() string {
	name, err := os.Hostname()
	check(err)
	return name
}

// auxiliary is the kernel's auxiliary vector: addresses that it chose at random.
func auxiliary() string { return fmt.Sprintf("%x", read("/proc/self/auxv", 512)) }

// mapOrder is the order in which Go goes through a large map.
func mapOrder() string {
	m := map[int]bool{}
	for i := range 1000 {
		m[i] = true
	}
	var order strings.Builder
	for i := range m {
		fmt.Fprintf(&order, "%x.", i)
	}
	return order.String()
}
