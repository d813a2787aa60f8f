// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	v1 "github.com/micropod/micropod/api/micropod/v1"
)

type inspectOptions struct {
	format, kind string
	size         bool
}

func newInspect(a *app) *cobra.Command {
	o := &inspectOptions{}
	c := &cobra.Command{
		Use:   "inspect [flags] NAME [NAME...]",
		Short: "Show all that is known of containers, images or machines, as JSON",
		Example: `  micropod inspect web
  micropod inspect -f '{{.State.Status}} {{.State.ExitCode}}' web`,
		Args:              needArgs(1, "name"),
		RunE:              func(c *cobra.Command, args []string) error { return runInspect(c, a, o, args) },
		ValidArgsFunction: completeContainers(a, anyState),
	}
	c.Flags().StringVarP(&o.format, "format", "f", "json", "`json|TEMPLATE`")
	c.Flags().BoolVarP(&o.size, "size", "s", false, "tell what containers take on disk: SizeRw, with their image SizeRootFs")
	c.Flags().StringVar(&o.kind, "type", "", "look only for a `container|image|vm`")
	return c
}

func runInspect(c *cobra.Command, a *app, o *inspectOptions, names []string) error {
	if _, err := a.connect(c.Context()); err != nil {
		return err
	}
	var own, whole map[string]int64
	if o.size {
		var err error
		if own, whole, err = a.containerSizes(c.Context()); err != nil {
			return err
		}
	}
	var found []any
	failed := a.each(c, names, func(name string) (string, error) {
		v, err := a.lookUp(c.Context(), name, o.kind)
		if err == nil {
			if c, ok := v.(containerInspect); ok && o.size {
				rw, all := own[c.Id], whole[c.Id]
				c.SizeRw, c.SizeRootFs = &rw, &all
				v = c
			}
			found = append(found, v)
		}
		return "", err
	})
	if err := printInspected(a, o.format, found); err != nil {
		return err
	}
	return failed
}

func printInspected(a *app, format string, found []any) error {
	if format == "json" || format == "" {
		return printJSON(a.out, nonNil(found))
	}
	return printTemplate(a.out, format, found)
}

// lookUp finds what name means: a container before a machine before an image.
func (a *app) lookUp(ctx context.Context, name, kind string) (any, error) {
	looks := map[string]func() (any, error){
		"container": func() (any, error) { return view(containerView)(a.container(ctx, name)) },
		"vm":        func() (any, error) { return view(machineView)(a.machine(ctx, name)) },
		"image":     func() (any, error) { return view(imageView)(a.image(ctx, name)) },
	}
	if kind != "" {
		look, ok := looks[kind]
		if !ok {
			return nil, usagef("types are container, image and vm", "--type %q is unknown", kind)
		}
		return look()
	}
	for _, kind := range []string{"container", "vm", "image"} {
		v, err := looks[kind]()
		if err == nil || connect.CodeOf(err) != connect.CodeNotFound && connect.CodeOf(err) != connect.CodeInvalidArgument {
			return v, err
		}
	}
	return nil, usagef("'micropod ps -a', 'micropod images' and 'micropod vm ls' list what there is", "no container, machine or image is called %q", name)
}

// view makes what a call answered into what inspect shows.
func view[T any](show func(T) any) func(T, error) (any, error) {
	return func(v T, err error) (any, error) {
		if err != nil {
			return nil, err
		}
		return show(v), nil
	}
}

// machine asks the daemon for one machine.
func (a *app) machine(ctx context.Context, name string) (*v1.VM, error) {
	answer, err := a.client.machines.GetVM(ctx, connect.NewRequest(&v1.GetVMRequest{VmId: name}))
	if err != nil {
		return nil, err
	}
	return answer.Msg.Vm, nil
}

// object is JSON that templates can walk.
func object(raw []byte) any {
	var v any
	if json.Unmarshal(raw, &v) != nil {
		return nil
	}
	return v
}
