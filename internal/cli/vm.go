// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

func newVM(a *app) *cobra.Command {
	return group("vm", "Manage machines, with or without containers in them", `  micropod vm ls
  micropod vm create --vcpus 2 --memory 1g
  micropod vm rm -f vm-1`,
		newVMList(a), newVMCreate(a), newVMStart(a), newVMStop(a), newVMPause(a), newVMResume(a), newVMRemove(a), newVMInspect(a),
	)
}

// machineRow is a line of vm ls.
type machineRow struct {
	ID, Name, State, Reason, Engine string
	VCPUs, Memory, Pid              string
	CreatedAt, CreatedSince         string
	Labels                          string
}

var machineTable = table{
	quiet: "{{.ID}}",
	columns: []column{
		{"MACHINE ID", "{{.ID}}"}, {"NAME", `{{or .Name "-"}}`}, {"STATE", "{{.State}}"}, {"VCPUS", "{{.VCPUs}}"}, {"MEMORY", "{{.Memory}}"},
		{"ENGINE", "{{.Engine}}"}, {"PID", "{{.Pid}}"}, {"CREATED", "{{.CreatedSince}}"},
	},
}

func newVMList(a *app) *cobra.Command {
	o := &formatFlags{}
	var filters []string
	c := &cobra.Command{
		Use: "ls [flags]", Aliases: []string{"list", "ps"},
		Short: "List machines",
		Example: `  micropod vm ls
  micropod vm ls --filter status=running --format json`,
		Args: exactArgs(0, "no words, only flags"),
		RunE: func(c *cobra.Command, _ []string) error {
			set, err := parseFilters(filters, "id", "name", "label", "status")
			if err != nil {
				return err
			}
			client, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			answer, err := client.machines.ListVMs(c.Context(), connect.NewRequest(&v1.ListVMsRequest{}))
			if err != nil {
				return err
			}
			var rows []machineRow
			for _, m := range answer.Msg.Vms {
				if r := newMachineRow(m); set.machine(m, r) {
					rows = append(rows, r)
				}
			}
			return printList(a.out, o, machineTable, rows)
		},
	}
	o.addFlags(c)
	c.Flags().StringArrayVarP(&filters, "filter", "f", nil, "show only those with `id|name|label|status=value`")
	return c
}

func newMachineRow(m *v1.VM) machineRow {
	pid := "-"
	if m.Pid != 0 {
		pid = fmt.Sprint(m.Pid)
	}
	return machineRow{
		ID: m.Id, Name: m.Name, State: machineStateName(m.State), Reason: m.StateReason, Engine: m.Config.GetEngine(),
		VCPUs: fmt.Sprint(m.Config.GetVcpuCount()), Memory: fmt.Sprintf("%d MiB", m.Config.GetMemSizeMib()), Pid: pid,
		CreatedAt: instant(m.CreatedAt), CreatedSince: ago(m.CreatedAt), Labels: joinLabels(m.Config.GetLabels()),
	}
}

func (f filterSet) machine(m *v1.VM, r machineRow) bool {
	return f.any("id", func(v string) bool { return strings.HasPrefix(m.Id, v) }) &&
		f.any("name", func(v string) bool { return strings.Contains(m.Name, v) }) &&
		f.any("status", func(v string) bool { return v == r.State }) &&
		f.labels(m.Config.GetLabels())
}

type vmCreateOptions struct {
	name, memory, kernel, engine string
	vcpus                        uint32
	kernelArgs, labels           []string
	nested, noStart              bool
	devices                      vmDevices
}

func newVMCreate(a *app) *cobra.Command {
	o := &vmCreateOptions{}
	c := &cobra.Command{
		Use:   "create [flags]",
		Short: "Make a machine without containers, and boot it",
		Example: `  micropod vm create --vcpus 2 --memory 1g --name lab
  micropod vm create --rootfs ./debian.ext4 --drive ./data.ext4 --disk-iops 1000
  micropod vm create --no-start`,
		Args: exactArgs(0, "no words, only flags"),
		RunE: func(c *cobra.Command, _ []string) error { return runVMCreate(c.Context(), a, o) },
	}
	f := c.Flags()
	f.StringVar(&o.name, "name", "", "`name` of the machine")
	f.Uint32Var(&o.vcpus, "vcpus", 0, "`number` of vCPUs (default: the daemon's)")
	f.StringVarP(&o.memory, "memory", "m", "", "memory `size`, such as 512m (default: the daemon's)")
	f.StringVar(&o.kernel, "kernel", "", "guest kernel `file`: vmlinux or bzImage")
	f.StringArrayVar(&o.kernelArgs, "kernel-arg", nil, "add an `argument` to the kernel's command line")
	f.StringVar(&o.engine, "engine", "auto", "`engine` that runs the machine")
	f.StringArrayVarP(&o.labels, "label", "l", nil, "set a label `key=value`")
	f.BoolVar(&o.nested, "nested", false, "let the machine run virtual machines itself")
	f.BoolVar(&o.noStart, "no-start", false, "make it, but do not boot it")
	o.devices.addFlags(f)
	return c
}

func runVMCreate(ctx context.Context, a *app, o *vmCreateOptions) error {
	memory, err := parseSize("--memory", o.memory)
	if err != nil {
		return err
	}
	flags := containerFlags{vcpus: o.vcpus, kernel: o.kernel, kernelArgs: o.kernelArgs, engine: o.engine, nested: o.nested}
	config := flags.machine()
	config.MemSizeMib, config.Labels = uint32(memory>>20), pairs(o.labels)
	if err := o.devices.read(config); err != nil {
		return err
	}
	client, err := a.connect(ctx)
	if err != nil {
		return err
	}
	answer, err := client.machines.CreateVM(ctx, connect.NewRequest(&v1.CreateVMRequest{Name: o.name, Config: config, NoStart: o.noStart}))
	if err != nil {
		return err
	}
	fmt.Fprintln(a.out, answer.Msg.Vm.Id)
	return nil
}

func newVMStart(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "start MACHINE [MACHINE...]",
		Short:   "Boot stopped machines",
		Example: `  micropod vm start lab`,
		Args:    needArgs(1, "machine"),
		RunE: a.onEach(func(ctx context.Context, client *client, id string) error {
			_, err := client.machines.StartVM(ctx, connect.NewRequest(&v1.StartVMRequest{VmId: id}))
			return err
		}),
		ValidArgsFunction: completeMachines(a),
	}
}

func newVMStop(a *app) *cobra.Command {
	var timeout uint32
	var force bool
	c := &cobra.Command{
		Use:     "stop [flags] MACHINE [MACHINE...]",
		Short:   "Ask machines to power off, and end them after a while",
		Example: `  micropod vm stop -t 30 lab`,
		Args:    needArgs(1, "machine"),
		RunE: a.onEach(func(ctx context.Context, client *client, id string) error {
			_, err := client.machines.StopVM(ctx, connect.NewRequest(&v1.StopVMRequest{VmId: id, TimeoutSeconds: timeout, Force: force}))
			return err
		}),
		ValidArgsFunction: completeMachines(a),
	}
	c.Flags().Uint32VarP(&timeout, "time", "t", 0, "`seconds` before the machine is ended by force (default 10)")
	c.Flags().BoolVarP(&force, "force", "f", false, "end it at once")
	return c
}

func newVMRemove(a *app) *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use:     "rm [flags] MACHINE [MACHINE...]",
		Short:   "Remove machines with all that is in them",
		Example: `  micropod vm rm -f lab`,
		Args:    needArgs(1, "machine"),
		RunE: a.onEach(func(ctx context.Context, client *client, id string) error {
			_, err := client.machines.DeleteVM(ctx, connect.NewRequest(&v1.DeleteVMRequest{VmId: id, Force: force}))
			return err
		}),
		ValidArgsFunction: completeMachines(a),
	}
	c.Flags().BoolVarP(&force, "force", "f", false, "remove also those that run")
	return c
}

func newVMInspect(a *app) *cobra.Command {
	o := &inspectOptions{kind: "vm"}
	c := &cobra.Command{
		Use:               "inspect [flags] MACHINE [MACHINE...]",
		Short:             "Show all that is known of machines, as JSON",
		Example:           `  micropod vm inspect -f '{{.State}}' lab`,
		Args:              needArgs(1, "machine"),
		RunE:              func(c *cobra.Command, args []string) error { return runInspect(c, a, o, args) },
		ValidArgsFunction: completeMachines(a),
	}
	c.Flags().StringVarP(&o.format, "format", "f", "json", "`json|TEMPLATE`")
	return c
}
