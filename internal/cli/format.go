// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"text/template"

	"github.com/spf13/cobra"
)

// table says how a list is shown.
type table struct {
	columns []column // of the default table, in order
	quiet   string   // template of -q
}

type column struct{ title, template string }

// formatFlags are --format and -q of every list.
type formatFlags struct {
	format string
	quiet  bool
}

func (o *formatFlags) addFlags(c *cobra.Command) {
	c.Flags().StringVar(&o.format, "format", "table", "`table|json|TEMPLATE`, such as '{{.ID}} {{.Names}}' or 'table {{.ID}}\\t{{.Names}}'")
	c.Flags().BoolVarP(&o.quiet, "quiet", "q", false, "print ids only")
	_ = c.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"table", "json"}, cobra.ShellCompDirectiveNoFileComp))
}

// printList shows rows as the flags say. The names of R's fields are what --format '{{.Name}}' takes, and what JSON shows.
func printList[R any](w io.Writer, o *formatFlags, t table, rows []R) error {
	switch {
	case o.quiet:
		return printTemplate(w, t.quiet, rows)
	case o.format == "" || o.format == "table":
		return printTable(w, t.columns, rows)
	case o.format == "json":
		return printJSON(w, nonNil(rows))
	case strings.HasPrefix(o.format, "table "):
		return printTemplateTable(w, t.columns, strings.TrimPrefix(o.format, "table "), rows)
	}
	return printTemplate(w, o.format, rows)
}

// nonNil keeps an empty list [] rather than null.
func nonNil[R any](rows []R) []R {
	if rows == nil {
		return []R{}
	}
	return rows
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func printTemplate[R any](w io.Writer, text string, rows []R) error {
	t, err := parseTemplate(text)
	if err != nil {
		return err
	}
	for _, r := range rows {
		if err := execute(w, t, r); err != nil {
			return err
		}
		if _, err := fmt.Fprintln(w); err != nil {
			return err
		}
	}
	return nil
}

func printTable[R any](w io.Writer, columns []column, rows []R) error {
	titles, cells := make([]string, len(columns)), make([]string, len(columns))
	for i, c := range columns {
		titles[i], cells[i] = c.title, c.template
	}
	return tabulate(w, strings.Join(titles, "\t"), strings.Join(cells, "\t"), rows)
}

// printTemplateTable heads each {{.Field}} with the column's title that shows it, else with the field's name.
func printTemplateTable[R any](w io.Writer, columns []column, text string, rows []R) error {
	text = strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(text)
	head := text
	for _, c := range columns {
		head = strings.ReplaceAll(head, c.template, c.title)
	}
	head = fieldPattern.ReplaceAllStringFunc(head, func(f string) string {
		return strings.ToUpper(fieldPattern.FindStringSubmatch(f)[1])
	})
	return tabulate(w, head, text, rows)
}

func tabulate[R any](w io.Writer, head, text string, rows []R) error {
	t, err := parseTemplate(text)
	if err != nil {
		return err
	}
	tw := tabwriter.NewWriter(w, 10, 1, 3, ' ', 0)
	fmt.Fprintln(tw, head)
	for _, r := range rows {
		if err := execute(tw, t, r); err != nil {
			return err
		}
		fmt.Fprintln(tw)
	}
	return tw.Flush()
}

func execute(w io.Writer, t *template.Template, v any) error {
	if err := t.Execute(w, v); err != nil {
		return usagef("'--format json' shows all that there is", "--format: %v", err)
	}
	return nil
}

// parseTemplate knows the functions that Docker's templates have.
func parseTemplate(text string) (*template.Template, error) {
	text = strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(text)
	t, err := template.New("--format").Option("missingkey=error").Funcs(templateFunctions).Parse(text)
	if err != nil {
		return nil, usagef("templates are Go's: '{{.ID}}', '{{json .}}'; see https://pkg.go.dev/text/template", "--format: %v", err)
	}
	return t, nil
}
