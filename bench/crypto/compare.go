package crypto

import (
	"fmt"
	"io"
	"regexp"
	"strings"

	"pqlab/report"
)

// Unit is what the figure measures in.
type Unit string

// The units. Those of different devices mean the same, except for the counter's cycles.
const (
	CoreCycles    Unit = "core"    // the counter's cycles times Counter.CorePerTick's median
	CounterCycles Unit = "counter" // as they were counted
	Nanoseconds   Unit = "ns"
)

// Units lists them, the default first.
func Units() []string {
	return []string{string(CoreCycles), string(CounterCycles), string(Nanoseconds)}
}

func (u Unit) String() string {
	switch u {
	case CoreCycles:
		return "cycles of the core"
	case CounterCycles:
		return "cycles of the counter"
	}
	return "ns"
}

// of an operation; ok is false where there is no counter.
func (u Unit) of(r Result, o Operation) (s Spread, ok bool) {
	if u == Nanoseconds {
		return o.NS, true
	}
	if r.Machine.Counter == nil || o.Cycles == nil {
		return Spread{}, false
	}
	if u == CounterCycles {
		return *o.Cycles, true
	}
	k, c := r.Machine.Counter.CorePerTick.Median, *o.Cycles
	return Spread{k * c.P10, k * c.Median, k * c.Mean, k * c.P90}, true
}

// Comparison is of devices, in the order of the columns of the figure.
type Comparison struct {
	Results []Result
	Unit    Unit
	Version string // of pqlab
}

// ReadAll reads a file of each device. A device that is in two of them is an ErrFile that names both.
func ReadAll(paths ...string) ([]Result, error) {
	var all []Result
	seen := map[string]string{}
	for _, path := range paths {
		r, err := Read(path)
		if err != nil {
			return nil, err
		}
		if other, ok := seen[r.Device]; ok {
			return nil, fmt.Errorf("%s: %w that can stand beside %s: both are of device %q; one of them measured with another --device could",
				path, ErrFile, other, r.Device)
		}
		seen[r.Device] = path
		all = append(all, r)
	}
	return all, nil
}

// schemes of all devices, each once, signatures first; otherwise in the order in which they come.
func (c Comparison) schemes() []Scheme {
	var all []Scheme
	seen := map[string]bool{}
	for _, kind := range []string{Signature, KEM} {
		for _, r := range c.Results {
			for _, s := range r.Schemes {
				if s.Kind == kind && !seen[s.Name] {
					seen[s.Name] = true
					all = append(all, s)
				}
			}
		}
	}
	return all
}

// get finds what a device measured of a scheme. A device may lack it.
func get(r Result, scheme, operation string) (Operation, bool) {
	s, ok := r.scheme(scheme)
	if !ok {
		return Operation{}, false
	}
	return s.operation(operation)
}

var variant = regexp.MustCompile(`^(.*?)([0-9]+)$`)

// place splits "dilithium3" into the family and its variant.
func place(scheme string) report.ChartPlace {
	if m := variant.FindStringSubmatch(scheme); m != nil && m[1] != "" {
		return report.ChartPlace{Group: m[1], Name: m[2]}
	}
	return report.ChartPlace{Group: scheme}
}

// Chart is the paper's figure: the client's operations in the first row, the server's in the second.
func (c Comparison) Chart() report.Chart {
	chart := report.Chart{
		Title: "What post-quantum primitives cost", Unit: c.Unit.String(),
		Rows: []string{"client: verify, encapsulate", "server: make a key and sign, make a key and decapsulate"},
	}
	schemes := c.schemes()
	for _, s := range schemes {
		chart.Places = append(chart.Places, place(s.Name))
	}
	for _, r := range c.Results {
		col := report.ChartColumn{Name: r.Device, Note: r.Machine.CPU}
		if n := r.Machine.Counter; n != nil {
			col.Note += fmt.Sprintf(", %.2f GHz", n.Hz*n.CorePerTick.Median/1e9)
		}
		if r.Machine.Virtual != "" && r.Machine.Virtual != "no" {
			col.Note += ", " + r.Machine.Virtual
		}
		switch {
		case r.Machine.Emulated:
			col.Warning = "emulated by " + r.Machine.Virtual + ": no real cycles"
		case r.Machine.Counter == nil && c.Unit != Nanoseconds:
			col.Warning = "no cycle counter: --unit ns compares it"
		}
		chart.Columns = append(chart.Columns, col)
	}
	for row := range chart.Rows {
		var columns [][]*report.ChartBar
		for _, r := range c.Results {
			var bars []*report.ChartBar
			for _, s := range schemes {
				bars = append(bars, c.bar(r, s, row))
			}
			columns = append(columns, bars)
		}
		chart.Bars = append(chart.Bars, columns)
	}
	return chart
}

// bar of the client's row (0) or the server's (1), in which a line tells what making the key alone costs. Nil if the device
// has not measured it.
func (c Comparison) bar(r Result, s Scheme, row int) *report.ChartBar {
	name := Operations(s.Kind)[row]
	o, ok := get(r, s.Name, name)
	if !ok {
		return nil
	}
	v, ok := c.Unit.of(r, o)
	if !ok {
		return nil
	}
	b := &report.ChartBar{
		Value: v.Median, Low: v.P10, High: v.P90, Marked: o.Marked(r.Iterations),
		Title: fmt.Sprintf("%s, %s %s: median %.0f, p10 %.0f, p90 %.0f %s; %d of %d samples noisy",
			r.Device, s.Name, name, v.Median, v.P10, v.P90, c.Unit, o.Noisy, r.Iterations),
	}
	if row == 1 {
		key, _ := get(r, s.Name, Keygen)
		part, _ := c.Unit.of(r, key)
		b.Part = part.Median
	}
	return b
}

// Table of all operations, a column for each device: the median, and p10 and p90.
func (c Comparison) Table() report.Table {
	t := report.Table{Text: 3, Head: []string{"side", "scheme", "operation"}}
	for _, r := range c.Results {
		t.Head = append(t.Head, r.Device)
	}
	for _, side := range []string{Client, Server} {
		for _, s := range c.schemes() {
			for _, name := range Operations(s.Kind) {
				if Side(name) != side {
					continue
				}
				row := []string{side, s.Name, name}
				for _, r := range c.Results {
					row = append(row, c.cell(r, s.Name, name))
				}
				t.Rows = append(t.Rows, row)
			}
		}
	}
	return t
}

func (c Comparison) cell(r Result, scheme, operation string) string {
	o, ok := get(r, scheme, operation)
	if !ok {
		return "–"
	}
	v, ok := c.Unit.of(r, o)
	if !ok {
		return "–"
	}
	mark := ""
	if o.Marked(r.Iterations) {
		mark = "*"
	}
	return fmt.Sprintf("%.0f%s (%.0f–%.0f)", v.Median, mark, v.P10, v.P90)
}

// Sizes on the wire, in bytes. Devices that disagree are told apart.
func (c Comparison) Sizes() report.Table {
	t := report.Table{Text: 1, Head: []string{"scheme", "public key", "signature", "ciphertext"}}
	for _, s := range c.schemes() {
		row := []string{s.Name}
		for _, f := range []func(Scheme) int{
			func(s Scheme) int { return s.PublicKey }, func(s Scheme) int { return s.Signature }, func(s Scheme) int { return s.Ciphertext },
		} {
			var all []string
			for _, r := range c.Results {
				other, ok := r.scheme(s.Name)
				if text := fmt.Sprint(f(other)); ok && f(other) > 0 && (len(all) == 0 || all[len(all)-1] != text) {
					all = append(all, text)
				}
			}
			if len(all) == 0 {
				all = []string{"–"}
			}
			row = append(row, strings.Join(all, ", "))
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

// Legend says how the figure and its table are read.
func (c Comparison) Legend() []string {
	out := []string{"Bars and figures are medians over all samples; whiskers, and figures in brackets, are p10 and p90. The line within a " +
		"bar of the server is its key generation alone. A client starts from bytes, as a peer's key arrives."}
	if c.Unit == CoreCycles {
		out = append(out, "Cycles of the core are the counter's, times the ratio of both that was measured in the same run.")
	}
	return append(out, fmt.Sprintf("* more than %g %% of the samples are noisy: preempted, or slower than both 1.5 × the median and the median + "+
		"10 × (p90 − median). They are in every figure.", 100*NoisyShare))
}

// WriteSVG writes the figure.
func (c Comparison) WriteSVG(w io.Writer) error { return c.Chart().WriteSVG(w) }

// WriteHTML writes the figure, its table, the sizes, and all runs with what they say of their machines.
func (c Comparison) WriteHTML(w io.Writer) error {
	chart, table, sizes := c.Chart(), c.Table(), c.Sizes()
	d := report.Document{
		Title: chart.Title, Version: c.Version,
		Subtitle: fmt.Sprintf("On %s, in %s.", devices(len(c.Results)), c.Unit),
		Sections: []report.Section{
			{Chart: &chart, Notes: c.Legend()},
			{Title: "Median, p10 and p90 in " + c.Unit.String(), Table: &table},
			{Title: "Sizes on the wire, in bytes", Table: &sizes},
		},
	}
	for _, r := range c.Results {
		full := r.Table()
		d.Sections = append(d.Sections, report.Section{Title: r.Device, Facts: r.Facts()}, report.Section{Title: r.Device + ": every operation", Table: &full})
		for _, warning := range r.Warnings() {
			d.Warnings = append(d.Warnings, r.Device+": "+warning)
		}
	}
	return d.WriteHTML(w)
}

func devices(n int) string {
	if n == 1 {
		return "one device"
	}
	return fmt.Sprintf("%d devices", n)
}
