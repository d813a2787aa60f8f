// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"net/netip"
	"reflect"
	"testing"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"

	v1 "github.com/micropod/micropod/api/micropod/v1"
	"github.com/micropod/micropod/internal/machine"
)

// fill sets every exported field of a struct to something that is not zero.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Unix(1000, 5).UTC()))
			return
		}
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(v.Field(i))
			}
		}
	case reflect.String:
		v.SetString("text")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64, reflect.Int32:
		v.SetInt(3 << 20)
	case reflect.Uint32, reflect.Uint64:
		v.SetUint(7)
	case reflect.Map:
		v.Set(reflect.ValueOf(map[string]string{"k": "v"}))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	}
}

// unset lists the fields of a message that are not set, without those in but.
func unset(m protoreflect.Message, but ...protoreflect.Name) []protoreflect.Name {
	var names []protoreflect.Name
	fields := m.Descriptor().Fields()
next:
	for i := range fields.Len() {
		for _, b := range but {
			if fields.Get(i).Name() == b {
				continue next
			}
		}
		if !m.Has(fields.Get(i)) {
			names = append(names, fields.Get(i).Name())
		}
	}
	return names
}

func TestVMToWireIsWhole(t *testing.T) {
	t.Parallel()
	var info machine.Info
	fill(reflect.ValueOf(&info).Elem())
	info.State = machine.Running
	info.Network = machine.NetworkSpec{Joins: make([]machine.Join, 1), Ports: make([]machine.Port, 1), Egress: []string{"deny"}, Metadata: []byte("{}")}
	info.Joined = &machine.Joined{
		Endpoints: []machine.Endpoint{{Addrs: []netip.Prefix{netip.MustParsePrefix("10.0.0.2/24")}}},
		Ports:     make([]machine.Port, 1),
	}
	info.NICs = make([]machine.NIC, 1)
	info.Drives = []machine.Drive{{ID: rootDrive, Path: "/root", Root: true}, {ID: "other"}}
	vm := vmToWire(info)
	if names := unset(vm.ProtoReflect(), "resident_bytes", "resources", "sandbox_id"); len(names) > 0 {
		t.Errorf("fields of VM that are not filled: %v", names)
	}
	if names := unset(vm.Config.ProtoReflect()); len(names) > 0 {
		t.Errorf("fields of VMConfig that are not filled: %v", names)
	}
}

func TestSpecFromWireIsWhole(t *testing.T) {
	t.Parallel()
	var c v1.VMConfig
	fillMessage(c.ProtoReflect())
	c.MemSizeMib = 7
	spec, err := specFromWire(&v1.CreateVMRequest{VmId: "id", Name: "name", Config: &c})
	if err != nil {
		t.Fatal(err)
	}
	none := map[string]bool{"Image": true, "ScratchBytes": true, "Hostname": true} // not in the request
	v := reflect.ValueOf(spec)
	for i := range v.NumField() {
		if name := v.Type().Field(i).Name; v.Field(i).IsZero() != none[name] {
			t.Errorf("field %s of the spec is %v", name, v.Field(i))
		}
	}
	if spec.Memory != 7<<20 {
		t.Errorf("7 MiB became %d bytes", spec.Memory)
	}
	empty, err := specFromWire(&v1.CreateVMRequest{})
	if err != nil || !reflect.DeepEqual(empty, machine.Spec{}) {
		t.Errorf("an empty request became %+v, %v: converting must set no defaults", empty, err)
	}
}

func TestEveryStateIsOnTheWire(t *testing.T) {
	t.Parallel()
	seen := map[v1.VMState]bool{}
	for s := machine.Unknown; s <= machine.Suspended; s++ {
		seen[vmToWire(machine.Info{State: s}).State] = true
	}
	if len(seen) != len(v1.VMState_name) {
		t.Errorf("%d states arrive, the API has %d", len(seen), len(v1.VMState_name))
	}
}
