// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

// Command visitor is what the end-to-end tests of networks run in containers:
//
//	visitor tcp HOST:PORT            connects, and says why it cannot
//	visitor udp HOST:PORT TEXT       sends one datagram
//	visitor get|put URL NAME:VALUE   prints what HTTP answers, with these headers
//	visitor look NAME                prints a name's addresses
//	visitor frames                   sends each line of its input, hexadecimal digits, by eth0 as an Ethernet frame
package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const limit = 3 * time.Second

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "visitor:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 1 && args[0] == "frames" {
		return frames("eth0")
	}
	if len(args) < 2 {
		return errors.New("wanted are a verb and whereto")
	}
	switch args[0] {
	case "tcp", "udp":
		c, err := net.DialTimeout(args[0], args[1], limit)
		if err != nil {
			return err
		}
		_, err = io.WriteString(c, strings.Join(args[2:], " "))
		return errors.Join(err, c.Close())
	case "get", "put":
		return ask(strings.ToUpper(args[0]), args[1], args[2:])
	case "look":
		addrs, err := net.DefaultResolver.LookupHost(context.Background(), args[1])
		fmt.Println(strings.Join(addrs, " "))
		return err
	}
	return fmt.Errorf("%q is no verb", args[0])
}

func ask(method, url string, headers []string) error {
	r, err := http.NewRequest(method, url, nil)
	if err != nil {
		return err
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ":")
		r.Header.Set(name, value)
	}
	a, err := (&http.Client{Timeout: 2 * limit}).Do(r)
	if err != nil {
		return err
	}
	defer a.Body.Close()
	if _, err := io.Copy(os.Stdout, a.Body); err != nil {
		return err
	}
	if a.StatusCode != http.StatusOK {
		return errors.New(a.Status)
	}
	return nil
}

func frames(device string) error {
	i, err := net.InterfaceByName(device)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		frame, err := hex.DecodeString(lines.Text())
		if err != nil {
			return err
		}
		if err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: i.Index}); err != nil {
			return err
		}
	}
	return nil
}
