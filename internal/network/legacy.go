// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// legacy is one family of the kernel's old packet filter, which has no interface but its
// own program's.
type legacy struct {
	// tables of the kernel's that lists what is loaded: nothing is done that would load one.
	tables  string
	program string
}

var legacies = []legacy{
	{"/proc/thread-self/net/ip_tables_names", "iptables-legacy"},
	{"/proc/thread-self/net/ip6_tables_names", "ip6tables-legacy"},
}

// passLegacy is passThrough for the old filter, where it is in use.
func (h *Host) passLegacy() error {
	return within(h.ns, func() error {
		for _, l := range legacies {
			if !l.inUse() {
				continue
			}
			if err := l.open(h.forwardChain(l), h.legacyRules("-i", "-o")); err != nil {
				return err
			}
			if err := l.open("INPUT", h.legacyRules("-i")); err != nil {
				return err
			}
		}
		return nil
	})
}

func (h *Host) withdrawLegacy() error {
	return within(h.ns, func() error {
		for _, l := range legacies {
			if !l.inUse() {
				continue
			}
			for _, chain := range []string{"FORWARD", dockerUser, "INPUT"} {
				if err := l.close(chain, h.legacyRules("-i", "-o")); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

func (l legacy) inUse() bool {
	names, err := os.ReadFile(l.tables)
	return err == nil && slices.Contains(strings.Fields(string(names)), "filter")
}

// forwardChain is Docker's chain for others if it is there.
func (h *Host) forwardChain(l legacy) string {
	if _, err := l.run("-S", dockerUser); err == nil {
		return dockerUser
	}
	return "FORWARD"
}

// legacyRules are rules as "iptables -S" prints them, without the chain.
func (h *Host) legacyRules(flags ...string) []string {
	var rules []string
	for _, f := range flags {
		rules = append(rules, fmt.Sprintf("%s %s+ -m comment --comment %s -j ACCEPT", f, h.bridgePrefix(), h.tableName()))
	}
	return rules
}

// open puts the rules at the head of the chain, unless they are there or nothing could drop.
func (l legacy) open(chain string, rules []string) error {
	out, err := l.run("-S", chain)
	if err != nil {
		return err
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	idle := len(lines) == 1 && strings.HasSuffix(lines[0], "ACCEPT")
	head := lines[1:min(len(lines), 1+len(rules))]
	if idle || l.has(head, chain, rules) {
		return nil
	}
	if err := l.close(chain, rules); err != nil {
		return err
	}
	for _, r := range rules {
		if _, err := l.run(append([]string{"-I", chain}, strings.Fields(r)...)...); err != nil {
			return err
		}
	}
	return nil
}

func (l legacy) has(lines []string, chain string, rules []string) bool {
	for _, r := range rules {
		if !slices.Contains(lines, "-A "+chain+" "+r) {
			return false
		}
	}
	return true
}

// close removes the rules from the chain, wherever they are in it.
func (l legacy) close(chain string, rules []string) error {
	out, err := l.run("-S", chain)
	if err != nil {
		return nil // no such chain
	}
	for line := range strings.Lines(string(out)) {
		for _, r := range rules {
			if strings.TrimSpace(line) == "-A "+chain+" "+r {
				if _, err := l.run(append([]string{"-D", chain}, strings.Fields(r)...)...); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// run runs the program in the thread's namespace; it waits for others that use the filter.
func (l legacy) run(args ...string) ([]byte, error) {
	var out, complaint bytes.Buffer
	cmd := exec.Command(l.program, append([]string{"-w"}, args...)...)
	cmd.Stdout, cmd.Stderr = &out, &complaint
	err := cmd.Run()
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the kernel filters by the old iptables, and %s, which could let machines through, is not installed", l.program)
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w: %s", l.program, strings.Join(args, " "), err, strings.TrimSpace(complaint.String()))
	}
	return out.Bytes(), nil
}
