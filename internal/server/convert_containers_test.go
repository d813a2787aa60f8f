// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"reflect"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	v1 "github.com/micropod/micropod/api/micropod/v1"
	"github.com/micropod/micropod/internal/container"
)

// fillMessage sets every field of a message, nested ones too.
func fillMessage(m protoreflect.Message) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		switch {
		case f.IsMap():
			m.Mutable(f).Map().Set(protoreflect.ValueOfString("k").MapKey(), protoreflect.ValueOfString("v"))
		case f.IsList() && f.Kind() == protoreflect.MessageKind:
			fillMessage(m.Mutable(f).List().AppendMutable().Message())
		case f.IsList():
			text, ok := addresses[f.Name()]
			if !ok {
				text = "item"
			}
			m.Mutable(f).List().Append(protoreflect.ValueOfString(text))
		case f.Kind() == protoreflect.MessageKind:
			fillMessage(m.Mutable(f).Message())
		default:
			if text, ok := addresses[f.Name()]; ok {
				m.Set(f, protoreflect.ValueOfString(text))
				continue
			}
			m.Set(f, scalar(f))
		}
	}
}

// addresses are what fields hold that are not any text.
var addresses = map[protoreflect.Name]string{"rules": "deny", "mmds": "{}", "ip": "10.0.0.2", "ip6": "fd00::2", "mac": "02:00:00:00:00:01", "host_ip": "127.0.0.1", "guest_mac": "02:00:00:00:00:02", "host_dev_name": "tap0", "tap_device": "tap0"}

// fillConfig fills all but what a container says for itself rather than for its machine.
func fillConfig(wire *v1.ContainerConfig) {
	fillMessage(wire.ProtoReflect())
	wire.Vm.Networks, wire.Vm.Ports, wire.Vm.BlockDevices, wire.Vm.NetworkInterfaces, wire.Vm.Egress, wire.Vm.Mmds = nil, nil, nil, nil, nil, nil
	wire.Vm.RootfsPath, wire.Vm.LogPath, wire.Vm.MetricsPath = "", "", ""
}

func scalar(f protoreflect.FieldDescriptor) protoreflect.Value {
	switch f.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.StringKind:
		return protoreflect.ValueOfString("text of " + string(f.Name()))
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(int32(f.Number()) + 100)
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(int64(f.Number()) + 100)
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(uint32(f.Number()) + 100)
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(uint64(f.Number()) + 100)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(1)
	default:
		return f.Default()
	}
}

// TestConfigGoesThereAndBack: a field that is forgotten on either way comes back empty.
func TestConfigGoesThereAndBack(t *testing.T) {
	t.Parallel()
	wire := new(v1.ContainerConfig)
	fillConfig(wire)
	if left := unset(wire.ProtoReflect()); len(left) != 0 {
		t.Fatalf("the test leaves %v empty", left)
	}
	before := proto.Clone(wire)
	config, err := configFromWire(wire)
	if err != nil {
		t.Fatal(err)
	}
	if back := configToWire(config); !proto.Equal(before, back) {
		t.Errorf("sent  %v\ngot back %v", before, back)
	}
	if !proto.Equal(before, wire) {
		t.Error("the conversion changed its input")
	}
	config.Auth = authFromWire(&v1.RegistryAuth{Username: "u"}) // beside the configuration in the request
	nonzero(t, reflect.ValueOf(config), "Config")
}

// nonzero tells of every field of the domain's type that the wire does not reach.
func nonzero(t *testing.T, v reflect.Value, path string) {
	t.Helper()
	if v.Kind() != reflect.Struct {
		if v.IsZero() {
			t.Errorf("%s is empty", path)
		}
		return
	}
	for i := range v.NumField() {
		nonzero(t, v.Field(i), path+"."+v.Type().Field(i).Name)
	}
}

func TestContainerToWireIsWhole(t *testing.T) {
	t.Parallel()
	wire := new(v1.ContainerConfig)
	fillConfig(wire)
	config, err := configFromWire(wire)
	if err != nil {
		t.Fatal(err)
	}
	var info container.Info
	fill(reflect.ValueOf(&info).Elem())
	info.Config, info.State, info.Args = config, container.Exited, []string{"a"}
	got := containerToWire(info)
	if left := unset(got.ProtoReflect(), "vm", "networks", "ports"); len(left) != 0 {
		t.Errorf("%v are empty", left)
	}
	if left := unset(got.Exit.ProtoReflect()); len(left) != 0 {
		t.Errorf("of the exit %v are empty", left)
	}
	empty := containerToWire(container.Info{})
	if empty.Exit != nil || empty.StartedAt != nil {
		t.Errorf("what is not there is told: %v", empty)
	}
}

func TestEveryContainerStateIsOnTheWire(t *testing.T) {
	t.Parallel()
	seen := map[v1.ContainerState]bool{}
	for s := container.Created; s <= container.Suspended; s++ {
		seen[containerStateToWire[s]] = true
	}
	if len(containerStateToWire) != int(container.Suspended)+1 || len(seen) != len(v1.ContainerState_name)-1 || seen[0] {
		t.Errorf("states on the wire are %v", seen)
	}
}

func TestRequestsReachTheDomainWhole(t *testing.T) {
	t.Parallel()
	exec := new(v1.ExecRequest)
	fillMessage(exec.ProtoReflect())
	nonzero(t, reflect.ValueOf(execFromWire(exec)), "ExecConfig")
	open := new(v1.AttachOpen)
	fillMessage(open.ProtoReflect())
	nonzero(t, reflect.ValueOf(attachFromWire(open)), "AttachOptions")
	logs := new(v1.LogsRequest)
	fillMessage(logs.ProtoReflect())
	if o := logsFromWire(logs); o.Tail == 0 || o.Since.IsZero() || o.Until.IsZero() || !o.Stdout || !o.Stderr || !o.Follow {
		t.Errorf("the log is asked for %+v", o)
	}
	if o := logsFromWire(&v1.LogsRequest{Tail: -5}); o.Tail != -1 || !o.Since.IsZero() {
		t.Errorf("all of the log is asked for as %+v", o)
	}
	five := uint32(5)
	if o, err := stopFromWire(&five, "INT"); err != nil || *o.Timeout != 5*time.Second || o.Signal != "INT" {
		t.Errorf("stopping is asked for as %+v, %v", o, err)
	}
	if o, err := stopFromWire(nil, ""); err != nil || o.Timeout != nil {
		t.Errorf("stopping in its own way is asked for as %+v, %v", o, err)
	}
}
