package crypto

import (
	"fmt"
	"strings"

	"pqlab/report"
)

// Table of everything that was measured, but for the sizes.
func (r Result) Table() report.Table {
	t := report.Table{Text: 3, Head: []string{"side", "scheme", "operation", "p10", "median", "mean", "p90 µs"}}
	if r.Machine.Counter != nil {
		t.Head = append(t.Head, "p10", "median", "mean", "p90 "+r.Machine.Counter.Name)
	}
	t.Head = append(t.Head, "preempted", "outliers", "noisy")
	for _, side := range []string{Client, Server} {
		for _, s := range r.Schemes {
			for _, o := range s.Operations {
				if o.Side == side {
					t.Rows = append(t.Rows, append([]string{side, s.Name, o.Name}, r.row(o)...))
				}
			}
		}
	}
	return t
}

func (r Result) row(o Operation) []string {
	var row []string
	for _, ns := range []float64{o.NS.P10, o.NS.Median, o.NS.Mean, o.NS.P90} {
		row = append(row, fmt.Sprintf("%.2f", ns/1e3))
	}
	if o.Cycles != nil {
		for _, n := range []float64{o.Cycles.P10, o.Cycles.Median, o.Cycles.Mean, o.Cycles.P90} {
			row = append(row, fmt.Sprintf("%.0f", n))
		}
	}
	mark := ""
	if o.Marked(r.Iterations) {
		mark = "*"
	}
	return append(row, fmt.Sprint(o.Preempted), fmt.Sprint(o.Outliers), fmt.Sprint(o.Noisy)+mark)
}

// Facts are what a run says of its machine and of itself.
func (r Result) Facts() []report.Fact {
	m, a := r.Machine, r.Activity
	unknown := func(s, instead string) string {
		if s == "" {
			return instead
		}
		return s
	}
	counter, core := "none that pqlab can read on "+m.Arch, "unknown: nothing to measure it against"
	if c := m.Counter; c != nil {
		invariant := "invariant"
		if !c.Invariant {
			invariant = "not known to be invariant"
		}
		counter = fmt.Sprintf("%s, %.3f MHz, %s", c.Name, c.Hz/1e6, invariant)
		core = fmt.Sprintf("%.3f cycles in one of the counter's (p10 %.3f, p90 %.3f): %.2f GHz", c.CorePerTick.Median, c.CorePerTick.P10, c.CorePerTick.P90,
			c.CorePerTick.Median*c.Hz/1e9)
	}
	build := m.Go + " " + m.Arch
	if m.Level != "" {
		build += ", GO" + strings.ToUpper(m.Arch) + "=" + m.Level
	}
	if m.Tags != "" {
		build += ", tags " + m.Tags
	}
	if m.Race {
		build += ", race detector"
	}
	pqlab := m.PQLab
	if m.Revision != "" {
		pqlab += ", revision " + m.Revision
	}
	overhead := fmt.Sprintf("%.0f ns", r.Overhead.NS.Median)
	if r.Overhead.Cycles != nil {
		overhead += fmt.Sprintf(", %.0f cycles of the counter", r.Overhead.Cycles.Median)
	}
	return []report.Fact{
		{Name: "CPU", Value: fmt.Sprintf("%d × %s", m.CPUs, m.CPU)},
		{Name: "Virtual machine", Value: unknown(m.Virtual, "unknown")},
		{Name: "Counter", Value: counter},
		{Name: "Core", Value: core},
		{Name: "Governor", Value: unknown(m.Governor, "unknown: the kernel shows none")},
		{Name: "Load average", Value: number(a.LoadBefore, "%.2f before") + ", " + number(a.LoadAfter, "%.2f after")},
		{Name: "Others", Value: number(a.OthersCores, "kept %.2f cores busy") + ", " + number(a.StealCores, "%.2f stolen by the hypervisor")},
		{Name: "Preempted", Value: fmt.Sprintf("%d times during samples; the run took %.1f s", a.Preempted, r.Seconds)},
		{Name: "Overhead", Value: overhead + " in each sample, not subtracted"},
		{Name: "Samples", Value: fmt.Sprintf("%d of each operation, from %s on", r.Iterations, r.Started.Format("2006-01-02 15:04:05 MST"))},
		{Name: "Kernel", Value: unknown(m.Kernel, "unknown")},
		{Name: "Go", Value: build},
		{Name: "pqlab", Value: pqlab},
	}
}

func number(f *float64, format string) string {
	if f == nil {
		return "unknown"
	}
	return fmt.Sprintf(format, *f)
}
