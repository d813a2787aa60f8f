// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// report is all results of one run.
type report struct {
	When    time.Time `json:"when"`
	Host    string    `json:"host"`
	CPUs    int       `json:"cpus"`
	Results []result  `json:"results"`
}

// result is one figure. Median, Min and Max are in Unit; limits are on the median.
type result struct {
	Name   string  `json:"name"`
	Unit   string  `json:"unit"`
	Median float64 `json:"median"`
	P95    float64 `json:"p95"`
	P99    float64 `json:"p99"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
	Runs   int     `json:"runs"`
	// Limit is what the median may be at most, or, negative, must be at least; 0: none.
	Limit float64 `json:"limit,omitempty"`
	Note  string  `json:"note,omitempty"`
}

func newReport() *report {
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return &report{When: time.Now().UTC(), Host: "Linux " + strings.TrimSpace(string(kernel)), CPUs: runtime.NumCPU()}
}

// add notes samples of one figure.
func (r *report) add(name, unit string, samples []float64, limit float64, note string) result {
	sorted := slices.Sorted(slices.Values(samples))
	x := result{Name: name, Unit: unit, Runs: len(sorted), Limit: limit, Note: note}
	if n := len(sorted); n > 0 {
		x.Min, x.Max = sorted[0], sorted[n-1]
		x.Median, x.P95, x.P99 = quantile(sorted, 0.5), quantile(sorted, 0.95), quantile(sorted, 0.99)
	}
	r.Results = append(r.Results, x)
	return x
}

// quantile interpolates linearly between the samples around q of a sorted list.
func quantile(sorted []float64, q float64) float64 {
	at := q * float64(len(sorted)-1)
	low := int(at)
	if low+1 >= len(sorted) {
		return sorted[low]
	}
	return sorted[low] + (at-float64(low))*(sorted[low+1]-sorted[low])
}

func (x result) kept() bool {
	switch {
	case x.Limit > 0:
		return x.Median <= x.Limit
	case x.Limit < 0:
		return x.Median >= -x.Limit
	}
	return true
}

func (r *report) missed() (n int) {
	for _, x := range r.Results {
		if !x.kept() {
			n++
		}
	}
	return n
}

func (r *report) print(w io.Writer) {
	fmt.Fprintf(w, "%s, %d CPUs, %s\n\n", r.Host, r.CPUs, r.When.Format(time.RFC3339))
	t := tabwriter.NewWriter(w, 0, 1, 2, ' ', 0)
	fmt.Fprintln(t, "WHAT\tMEDIAN\tP95\tP99\tMIN\tMAX\tN\tLIMIT\tNOTE")
	for _, x := range r.Results {
		limit := "-"
		if x.Limit > 0 {
			limit = fmt.Sprintf("<= %s", number(x.Limit, x.Unit))
		} else if x.Limit < 0 {
			limit = fmt.Sprintf(">= %s", number(-x.Limit, x.Unit))
		}
		if !x.kept() {
			limit += " MISSED"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\n", x.Name, number(x.Median, x.Unit), number(x.P95, x.Unit), number(x.P99, x.Unit),
			number(x.Min, x.Unit), number(x.Max, x.Unit), x.Runs, limit, x.Note)
	}
	_ = t.Flush()
}

func number(v float64, unit string) string {
	digits := 1
	if v < 10 {
		digits = 2
	}
	return fmt.Sprintf("%.*f %s", digits, v, unit)
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
