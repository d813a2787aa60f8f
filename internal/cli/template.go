// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

func newTemplate(a *app) *cobra.Command {
	return group("template", "Manage the saved machines that new ones are restored from", `  micropod template ls
  micropod template build --memory 1g --vcpus 2
  micropod template prune --force`,
		newTemplateBuild(a), newTemplateList(a), newTemplateInspect(a), newTemplateRemove(a), newTemplatePrune(a),
	)
}

// templateRow is a line of template ls.
type templateRow struct {
	ID, Engine, VCPUs, Memory, Size, Machines string
	CreatedAt, CreatedSince, UsedSince        string
}

var templateTable = table{
	quiet: "{{.ID}}",
	columns: []column{
		{"TEMPLATE ID", "{{.ID}}"}, {"ENGINE", "{{.Engine}}"}, {"VCPUS", "{{.VCPUs}}"}, {"MEMORY", "{{.Memory}}"}, {"SIZE", "{{.Size}}"},
		{"MACHINES", "{{.Machines}}"}, {"CREATED", "{{.CreatedSince}}"}, {"USED", "{{.UsedSince}}"},
	},
}

func newTemplateRow(t *v1.Template) templateRow {
	return templateRow{
		ID: t.Id, Engine: t.Engine, VCPUs: fmt.Sprint(t.Vcpus), Memory: units.CustomSize("%.4g %s", float64(t.MemoryBytes), 1024, []string{"B", "KiB", "MiB", "GiB", "TiB"}),
		Size: bytesSize(t.DiskBytes), Machines: fmt.Sprint(t.Machines),
		CreatedAt: instant(t.MadeAt), CreatedSince: ago(t.MadeAt), UsedSince: ago(t.UsedAt),
	}
}

type templateBuildOptions struct {
	memory, kernel, engine string
	vcpus                  int32
	kernelArgs             []string
	nested                 bool
}

func newTemplateBuild(a *app) *cobra.Command {
	o := &templateBuildOptions{}
	c := &cobra.Command{
		Use:   "build [flags]",
		Short: "Make a template ahead of its first use",
		Long: `Make a template ahead of its first use, unless it is there, and print its id.

The first machine of a size makes its template by itself. Machines with a kernel, with kernel
arguments or nested ones boot, unless their template was built by this command.`,
		Example: `  micropod template build
  micropod template build --memory 1g --vcpus 2`,
		Args: exactArgs(0, "no words, only flags"),
		RunE: func(c *cobra.Command, _ []string) error { return runTemplateBuild(c.Context(), a, o) },
	}
	f := c.Flags()
	f.StringVarP(&o.memory, "memory", "m", "", "memory `size` of the machines, such as 512m (default: the daemon's)")
	f.Int32Var(&o.vcpus, "vcpus", 0, "`number` of vCPUs (default: the daemon's)")
	f.StringVar(&o.kernel, "kernel", "", "guest kernel `file`: vmlinux or bzImage")
	f.StringArrayVar(&o.kernelArgs, "kernel-arg", nil, "add an `argument` to the kernel's command line")
	f.StringVar(&o.engine, "engine", "auto", "`engine` that runs the machines")
	f.BoolVar(&o.nested, "nested", false, "the machines may run virtual machines themselves")
	return c
}

func runTemplateBuild(ctx context.Context, a *app, o *templateBuildOptions) error {
	memory, err := parseSize("--memory", o.memory)
	if err != nil {
		return err
	}
	client, err := a.connect(ctx)
	if err != nil {
		return err
	}
	flags := containerFlags{vcpus: uint32(max(o.vcpus, 0)), kernel: o.kernel, kernelArgs: o.kernelArgs, engine: o.engine, nested: o.nested}
	vm := flags.machine()
	answer, err := client.templates.Build(ctx, connect.NewRequest(&v1.BuildTemplateRequest{
		Engine: o.engine, Vcpus: o.vcpus, MemoryBytes: memory, Kernel: vm.GetKernelImagePath(), KernelArgs: vm.GetKernelArgs(), Nested: o.nested,
	}))
	if err != nil {
		return err
	}
	fmt.Fprintln(a.out, answer.Msg.Template.Id)
	return nil
}

func newTemplateList(a *app) *cobra.Command {
	o := &formatFlags{}
	c := &cobra.Command{
		Use: "ls [flags]", Aliases: []string{"list"},
		Short:   "List templates, the last used first",
		Example: `  micropod template ls`,
		Args:    exactArgs(0, "no words, only flags"),
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			answer, err := client.templates.List(c.Context(), connect.NewRequest(&v1.ListTemplatesRequest{}))
			if err != nil {
				return err
			}
			var rows []templateRow
			for _, t := range answer.Msg.Templates {
				rows = append(rows, newTemplateRow(t))
			}
			return printList(a.out, o, templateTable, rows)
		},
	}
	o.addFlags(c)
	return c
}

func newTemplateInspect(a *app) *cobra.Command {
	var format string
	c := &cobra.Command{
		Use:     "inspect [flags] TEMPLATE [TEMPLATE...]",
		Short:   "Show all that is known of templates, as JSON",
		Example: `  micropod template inspect 9330eb8b30052cd7`,
		Args:    needArgs(1, "template"),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			var found []any
			failed := a.each(c, args, func(id string) (string, error) {
				answer, err := client.templates.Get(c.Context(), connect.NewRequest(&v1.GetTemplateRequest{Id: id}))
				if err != nil {
					return "", err
				}
				found = append(found, answer.Msg.Template)
				return "", nil
			})
			if err := printInspected(a, format, found); err != nil {
				return err
			}
			return failed
		},
	}
	c.Flags().StringVarP(&format, "format", "f", "json", "`json|TEMPLATE`")
	return c
}

func newTemplateRemove(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "rm TEMPLATE [TEMPLATE...]",
		Short:   "Remove templates that no machine runs from",
		Example: `  micropod template rm 9330eb8b30052cd7`,
		Args:    needArgs(1, "template"),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			return a.each(c, args, func(id string) (string, error) {
				_, err := client.templates.Remove(c.Context(), connect.NewRequest(&v1.RemoveTemplatesRequest{Ids: []string{id}}))
				return id, err
			})
		},
	}
}

func newTemplatePrune(a *app) *cobra.Command {
	var force bool
	var idle time.Duration
	c := &cobra.Command{
		Use:   "prune [flags]",
		Short: "Remove templates that no machine runs from",
		Long: `Remove templates that no machine runs from.

The next machine of a size makes its template again.`,
		Example: `  micropod template prune --force --idle 240h`,
		Args:    exactArgs(0, "no words, only flags"),
		RunE: func(c *cobra.Command, _ []string) error {
			if !force {
				if sure, err := a.confirm("this removes templates that no machine runs from"); err != nil || !sure {
					return err
				}
			}
			client, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			answer, err := client.templates.Prune(c.Context(), connect.NewRequest(&v1.PruneTemplatesRequest{IdleSeconds: int64(idle / time.Second)}))
			if err != nil {
				return err
			}
			var freed int64
			for _, t := range answer.Msg.Removed {
				fmt.Fprintln(a.out, t.Id)
				freed += t.DiskBytes
			}
			fmt.Fprintf(a.err, "freed %s\n", bytesSize(freed))
			return nil
		},
	}
	c.Flags().BoolVarP(&force, "force", "f", false, "do it without asking")
	c.Flags().DurationVar(&idle, "idle", 0, "only those that were not used for so `long`, such as 240h")
	return c
}
