// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"strings"
	"testing"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

func TestParsePublish(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"80":                      " 0-0 80/tcp",
		"0:80":                    " 0-0 80/tcp",
		"8080:80":                 " 8080-0 80/tcp",
		"53:53/udp":               " 53-0 53/udp",
		"127.0.0.1:8080:80":       "127.0.0.1 8080-0 80/tcp",
		"127.0.0.1::80":           "127.0.0.1 0-0 80/tcp",
		"[::1]:8080:80":           "::1 8080-0 80/tcp",
		"[fd00::1]::80/udp":       "fd00::1 0-0 80/udp",
		"8000-8001:80-81":         " 8000-0 80/tcp; 8001-0 81/tcp",
		"8000-8010:80":            " 8000-8010 80/tcp",
		"80-81":                   " 0-0 80/tcp; 0-0 81/tcp",
		"":                        "is no port of the container",
		"http":                    "is no port of the container",
		"80:0":                    "is no port of the container",
		"80:70000":                "is no port of the container",
		"70000:80":                "is no port of the host",
		"90-80:80":                "is no port of the host",
		"8000-8001:80-82":         "not equally long",
		"8000:80-82":              "not equally long",
		"80/sctp":                 "neither tcp nor udp",
		"localhost:80:80":         "is no IP address",
		"1.2.3.4:5:6:7":           "not of the form",
		"[::1]80":                 "not of the form",
		"fd00::1:8080:80":         "not of the form",
		"127.0.0.1:8080:80/tcp/x": "neither tcp nor udp",
	} {
		ports, err := parsePublish(text)
		var list []string
		for _, p := range ports {
			list = append(list, fmt.Sprintf("%s %d-%d %s", p.HostIp, p.HostPort, p.HostPortEnd, portName(p)))
		}
		got := strings.ReplaceAll(strings.Join(list, "; "), ";  ", "; ")
		if err != nil {
			got = err.Error()
		}
		if got != want && (err == nil || !strings.Contains(got, want)) {
			t.Errorf("-p %s: %q, want %q", text, got, want)
		}
	}
}

func TestNetworkFlags(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		flags networkFlags
		want  string
	}{
		"none asked for":        {networkFlags{}, ""},
		"by name":               {networkFlags{networks: []string{"a", "b"}}, "a b"},
		"docker's default":      {networkFlags{networks: []string{"bridge"}}, "micropod"},
		"nothing":               {networkFlags{networks: []string{"none"}}, "none"},
		"address of the first":  {networkFlags{networks: []string{"a", "b"}, ip: "10.0.0.2", ip6: "fd00::2", mac: "02:00:00:00:00:01", aliases: []string{"x"}}, "a(10.0.0.2 fd00::2 02:00:00:00:00:01 [x]) b"},
		"address alone":         {networkFlags{ip: "10.0.0.2"}, "micropod(10.0.0.2   [])"},
		"keys":                  {networkFlags{networks: []string{"name=a,alias=x,alias=y,ip=10.0.0.3,ip6=fd00::3,mac-address=02:00:00:00:00:02"}}, "a(10.0.0.3 fd00::3 02:00:00:00:00:02 [x y])"},
		"unknown key":           {networkFlags{networks: []string{"name=a,driver=x"}}, `"driver" is unknown`},
		"keys without name":     {networkFlags{networks: []string{"alias=x"}}, "names no network"},
		"empty":                 {networkFlags{networks: []string{""}}, "names no network"},
		"host":                  {networkFlags{networks: []string{"host"}}, "cannot share the host's network"},
		"another container's":   {networkFlags{networks: []string{"container:web"}}, "not possible yet"},
		"address of no network": {networkFlags{networks: []string{"none"}, ip: "10.0.0.2"}, "need a network"},
		"v6 as v4":              {networkFlags{ip: "fd00::1"}, "is no IPv4 address"},
		"v4 as v6":              {networkFlags{ip6: "10.0.0.1"}, "is no IPv6 address"},
		"bad MAC":               {networkFlags{mac: "02:00"}, "is no Ethernet address"},
		"limits":                {networkFlags{networks: []string{"a"}, limits: rateFlags{up: "10mbit", packetsDown: "2k"}}, "a limits 10000000 0 0 2000"},
		"limits of the default": {networkFlags{limits: rateFlags{down: "1G"}}, "micropod limits 0 1000000000 0 0"},
		"limits by keys":        {networkFlags{networks: []string{"name=a,rate-up=8,rate-down=2kbit,packets-up=3,packets-down=4m"}}, "a limits 8 2000 3 4000000"},
		"limits of no network":  {networkFlags{networks: []string{"none"}, limits: rateFlags{up: "1m"}}, "need a network"},
		"bad rate":              {networkFlags{limits: rateFlags{up: "fast"}}, `--rate-up "fast" is no rate`},
		"slow rate":             {networkFlags{limits: rateFlags{up: "7"}}, `--rate-up "7" is no rate`},
		"huge rate":             {networkFlags{limits: rateFlags{down: "9999999999g"}}, `is no rate`},
		"packets in bits":       {networkFlags{networks: []string{"name=a,packets-up=1kbit"}}, `--packets-up "1kbit" is no rate`},
		"bad port":              {networkFlags{publish: []string{"x"}}, "is no port of the container"},
	} {
		c := &v1.ContainerConfig{}
		var list []string
		err := test.flags.readNetwork(c)
		for _, j := range c.Networks {
			text := j.Network
			if j.Ip+j.Ip6+j.Mac != "" {
				text += fmt.Sprintf("(%s %s %s %v)", j.Ip, j.Ip6, j.Mac, j.Aliases)
			}
			if l := j.Limits; l != nil {
				text += fmt.Sprintf(" limits %d %d %d %d", l.BitsUp, l.BitsDown, l.PacketsUp, l.PacketsDown)
			}
			list = append(list, text)
		}
		got := strings.Join(list, " ")
		if err != nil {
			got = err.Error()
		}
		if got != test.want && (err == nil || !strings.Contains(got, test.want)) {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}
