// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// cniDir is where Debian's package containernetworking-plugins has them.
const cniDir = "/usr/lib/cni"

// cniPlugins are what Kubernetes' and Podman's bridge networks chain, in order. HOSTDIR is
// where addresses are kept.
var cniPlugins = []struct{ name, config string }{
	{"bridge", `"bridge":"cni0","isGateway":true,"ipMasq":true,"ipam":{"type":"host-local","dataDir":"HOSTDIR","ranges":[[{"subnet":"10.250.0.0/16"}]],"routes":[{"dst":"0.0.0.0/0"}]}`},
	{"portmap", `"capabilities":{"portMappings":true},"runtimeConfig":{"portMappings":[{"hostPort":PORT,"containerPort":80,"protocol":"tcp"}]}`},
	{"firewall", `"backend":"iptables"`},
}

// container is one attachment by CNI: a namespace, which the caller has to bring, and a number.
type container struct {
	host, inside *netHost
	dir          string
	number       int
	result       json.RawMessage // of the last plugin
}

// measureCNI times ADD and DEL, alone and 20 at once; nothing without the plugins.
func measureCNI(ctx context.Context, s *setup, r *report) (add, del, many []float64, err error) {
	if _, err := os.Stat(filepath.Join(cniDir, "bridge")); err != nil {
		fmt.Fprintln(os.Stderr, "no CNI plugins (containernetworking-plugins): nothing to compare networks with")
		return nil, nil, nil, nil
	}
	host, err := newNetHost()
	if err != nil {
		return nil, nil, nil, err
	}
	defer host.close()
	for range s.runs {
		a, d, err := oneContainer(ctx, s, host)
		if err != nil {
			return nil, nil, nil, err
		}
		add, del = append(add, a), append(del, d)
	}
	for range rounds {
		m, err := manyContainers(ctx, s, host)
		if err != nil {
			return nil, nil, nil, err
		}
		many = append(many, m)
	}
	r.add("CNI bridge + portmap + firewall ADD", "ms", add, 0, "one published port; the namespace is made before")
	r.add("CNI bridge + portmap + firewall DEL", "ms", del, 0, "")
	r.add("20 CNI ADDs at once", "ms", many, 0, "")
	return add, del, many, nil
}

func oneContainer(ctx context.Context, s *setup, host *netHost) (add, del float64, err error) {
	c, err := newContainer(s, host, 0)
	if err != nil {
		return 0, 0, err
	}
	defer c.inside.close()
	began := time.Now()
	if err := c.add(ctx); err != nil {
		return 0, 0, err
	}
	add, began = milliseconds(time.Since(began)), time.Now()
	err = c.del(ctx)
	return add, milliseconds(time.Since(began)), err
}

func manyContainers(ctx context.Context, s *setup, host *netHost) (float64, error) {
	var list [atOnce]*container
	for i := range list {
		c, err := newContainer(s, host, i)
		if err != nil {
			return 0, err
		}
		defer c.inside.close()
		list[i] = c
	}
	took, err := allAtOnce(func(i int) error { return list[i].add(ctx) })
	for _, c := range list {
		err = errors.Join(err, c.del(ctx))
	}
	return took, err
}

func newContainer(s *setup, host *netHost, number int) (*container, error) {
	inside, err := newNetHost()
	return &container{host: host, inside: inside, dir: filepath.Join(s.dir, "cni"), number: number}, err
}

func (c *container) add(ctx context.Context) error {
	for i := range cniPlugins {
		out, err := c.run(ctx, "ADD", i)
		if err != nil {
			return err
		}
		c.result = json.RawMessage(out)
	}
	return nil
}

func (c *container) del(ctx context.Context) error {
	for i := len(cniPlugins) - 1; i >= 0; i-- {
		if _, err := c.run(ctx, "DEL", i); err != nil {
			return err
		}
	}
	return nil
}

// run runs one plugin as a runtime does (the CNI specification, section 2).
func (c *container) run(ctx context.Context, command string, plugin int) (string, error) {
	p := cniPlugins[plugin]
	config := fmt.Sprintf(`{"cniVersion":"1.0.0","name":"bench","type":%q,%s`, p.name, p.config)
	config = string(bytes.ReplaceAll(bytes.ReplaceAll([]byte(config), []byte("HOSTDIR"), []byte(c.dir)), []byte("PORT"), fmt.Append(nil, 20000+c.number)))
	if c.result != nil {
		config += `,"prevResult":` + string(c.result)
	}
	cmd := exec.CommandContext(ctx, filepath.Join(cniDir, p.name))
	cmd.Stdin = bytes.NewReader([]byte(config + "}"))
	cmd.Env = append(os.Environ(), "CNI_COMMAND="+command, fmt.Sprint("CNI_CONTAINERID=bench", c.number),
		"CNI_NETNS="+c.inside.path, "CNI_IFNAME=eth0", "CNI_PATH="+cniDir)
	return c.host.output(cmd)
}
