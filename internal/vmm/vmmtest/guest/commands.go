// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// commands are the verbs that a host may send.
var commands map[string]func(args string) (string, error)

func init() {
	commands = map[string]func(string) (string, error){
		"echo":     func(args string) (string, error) { return args, nil },
		"set":      set,
		"get":      func(args string) (string, error) { return variables[args], nil },
		"read":     read,
		"load":     load,
		"write":    write,
		"drives":   drives,
		"cpus":     func(string) (string, error) { return strconv.Itoa(runtime.NumCPU()), nil },
		"memory":   memory,
		"uptime":   uptime,
		"touch":    touch,
		"free":     free,
		"say":      func(args string) (string, error) { say(args); return "", nil },
		"flood":    flood,
		"crash":    crash,
		"exit":     func(string) (string, error) { os.Exit(7); return "", nil },
		"reboot":   func(string) (string, error) { return "", unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART) },
		"poweroff": func(string) (string, error) { return "", unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF) },
		"cpuflag":  cpuFlag,
		"mac":      mac,
		"exchange": exchange,
	}
}

// variables live in the guest's memory, for tests of what a snapshot holds.
var variables = map[string]string{}

// set NAME VALUE
func set(args string) (string, error) {
	name, value, _ := strings.Cut(args, " ")
	variables[name] = value
	return "", nil
}

// read DEVICE N: the first N bytes (at most 512) in hexadecimal, past the page cache.
func read(args string) (string, error) {
	var name string
	var n int
	if _, err := fmt.Sscan(args, &name, &n); err != nil || n < 0 || n > 512 {
		return "", errors.New("usage: read DEVICE N")
	}
	fd, err := unix.Open("/dev/"+name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	// BLKFLSBUF drops what the kernel has cached of the device.
	if err := unix.IoctlSetInt(fd, unix.BLKFLSBUF, 0); err != nil {
		return "", fmt.Errorf("flushing the cache of %s: %w", name, err)
	}
	b := make([]byte, n)
	if _, err := unix.Pread(fd, b, 0); err != nil {
		return "", fmt.Errorf("reading %s: %w", name, err)
	}
	return hex.EncodeToString(b), nil
}

// load DEVICE N: reads the first N bytes in requests of 64 KiB, past the page cache.
func load(args string) (string, error) {
	var name string
	var n int
	if _, err := fmt.Sscan(args, &name, &n); err != nil || n < 0 {
		return "", errors.New("usage: load DEVICE N")
	}
	fd, err := unix.Open("/dev/"+name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_DIRECT, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	page, err := unix.Mmap(-1, 0, 64<<10, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON) // aligned
	if err != nil {
		return "", err
	}
	defer unix.Munmap(page)
	for at := 0; at < n; at += len(page) {
		if _, err := unix.Pread(fd, page, int64(at)); err != nil {
			return "", fmt.Errorf("reading %s: %w", name, err)
		}
	}
	return "", nil
}

// write DEVICE TEXT: at the start of the device, and through to it.
func write(args string) (string, error) {
	name, text, _ := strings.Cut(args, " ")
	f, err := os.OpenFile("/dev/"+name, os.O_WRONLY|os.O_SYNC, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	_, err = f.WriteString(text)
	return "", err
}

// drives: "NAME:BYTES" of each virtio disk, in the order of their names.
func drives(string) (string, error) {
	dirs, err := filepath.Glob("/sys/block/vd*")
	if err != nil {
		return "", err
	}
	var out []string
	for _, dir := range dirs {
		b, err := os.ReadFile(dir + "/size")
		if err != nil {
			return "", err
		}
		sectors, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
		if err != nil {
			return "", err
		}
		out = append(out, fmt.Sprintf("%s:%d", filepath.Base(dir), sectors*512))
	}
	return strings.Join(out, " "), nil
}

// memory: the guest's total and available memory in bytes.
func memory(string) (string, error) {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return "", err
	}
	var total, available int64
	for line := range strings.Lines(string(b)) {
		fmt.Sscanf(line, "MemTotal: %d kB", &total)
		fmt.Sscanf(line, "MemAvailable: %d kB", &available)
	}
	return fmt.Sprintf("%d %d", total<<10, available<<10), nil
}

// uptime: nanoseconds of the guest's monotonic clock.
func uptime(string) (string, error) {
	var ts unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return strconv.FormatInt(ts.Nano(), 10), err
}

// held is memory taken by touch.
var held []byte

// touch N: take N bytes and write to each page.
func touch(args string) (string, error) {
	n, err := strconv.Atoi(args)
	if err != nil {
		return "", err
	}
	held = make([]byte, n)
	for i := 0; i < n; i += os.Getpagesize() {
		held[i] = byte(i>>12) | 1
	}
	return "", nil
}

// free: give back what touch took.
func free(string) (string, error) {
	held = nil
	debug.FreeOSMemory()
	return "", nil
}

// flood N: N bytes of numbered lines to the console.
func flood(args string) (string, error) {
	n, err := strconv.Atoi(args)
	if err != nil {
		return "", err
	}
	f, err := os.OpenFile("/dev/console", os.O_WRONLY, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	for written, line := 0, 0; written < n; line++ {
		k, err := fmt.Fprintf(f, "flood %09d %s\n", line, strings.Repeat("x", 1000))
		if err != nil {
			return "", err
		}
		written += k
	}
	return "", nil
}

// crash: the kernel panics.
func crash(string) (string, error) {
	if err := os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0); err != nil {
		return "", err
	}
	return "", errors.New("the kernel goes on")
}

// cpuflag NAME: whether /proc/cpuinfo has it.
func cpuFlag(args string) (string, error) {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "", err
	}
	return strconv.FormatBool(strings.Contains(string(b), " "+args+" ")), nil
}
