package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"pqlab/bench"
	"pqlab/topology"
)

// besides is a table whose rows have what was asked for and, side by side, what each shaper made of it.
type besides struct {
	heads, of []string // of what was asked for, and of each shaper
	shapers   []string
	keys      []string // of rows
	rows      map[string]map[string][]string
}

const between = "\t"

func (b *besides) add(loaded bool, shaper string, asked []string, made ...string) {
	machine := "as it is"
	if loaded {
		machine = "busy"
	}
	key := strings.Join(append([]string{machine}, asked...), between)
	if b.rows == nil {
		b.rows = map[string]map[string][]string{}
	}
	if b.rows[key] == nil {
		b.keys = append(b.keys, key)
		b.rows[key] = map[string][]string{}
	}
	b.rows[key][shaper] = made
	if !slices.Contains(b.shapers, shaper) {
		b.shapers = append(b.shapers, shaper)
	}
}

// table has heads first.
func (b *besides) table() [][]string {
	head := append([]string{"MACHINE"}, b.heads...)
	for _, s := range b.shapers {
		head = append(append(head, s+": "+b.of[0]), b.of[1:]...)
	}
	rows := [][]string{head}
	for _, key := range b.keys {
		row := strings.Split(key, between)
		for _, s := range b.shapers {
			made := b.rows[key][s]
			if made == nil {
				made = slices.Repeat([]string{"-"}, len(b.of))
			}
			row = append(row, made...)
		}
		rows = append(rows, row)
	}
	return rows
}

// linkTables are what was measured, as tables: rates and delays, jitter, losses. Those that have nothing are not there.
func linkTables(out bench.Links) (tables [][][]string) {
	grid := besides{heads: []string{"RATE", "DELAY"}, of: []string{"DELAY p50", "p99", "RATE"}}
	for _, e := range out.Errors {
		rate, off := "none", "-"
		if e.Rate > 0 {
			rate = topology.Rate(e.Rate).String()
		}
		if e.Off != nil {
			off = fmt.Sprintf("%+.2f %%", 100**e.Off)
		}
		grid.add(e.Loaded, e.Shaper, []string{rate, fmt.Sprintf("%g ms", e.Delay)}, offBy(e.P50), offBy(e.P99), off)
	}
	// Side by side these would be too wide.
	jitter := besides{heads: []string{"DELAY", "JITTER", "SHAPER"}, of: []string{"25 %", "50 %", "75 %", "90 %", "99 %"}}
	for _, e := range out.Jitters {
		cells := slices.Repeat([]string{"-"}, len(jitter.of))
		all := slices.Clone(e.Errors[:])
		for _, t := range e.Tail {
			all = append(all, t.QuartileError)
		}
		for i, off := range all {
			if e.Packets > 0 && i < len(cells) {
				cells[i] = fmt.Sprintf("%s (%s to %s)", offBy(off.Error), offBy(off.Low), offBy(off.High))
			}
		}
		jitter.add(e.Loaded, "ERROR OF", []string{fmt.Sprintf("%g ms", e.Delay), fmt.Sprintf("%g ms, %s", e.Jitter, e.Distribution), e.Shaper}, cells...)
	}
	loss := besides{heads: []string{"LOSS"}, of: []string{"SEEN", "99 %", "PACKETS", "NOT READ IN TIME"}}
	for _, e := range out.Losses {
		loss.add(e.Loaded, e.Shaper, []string{fmt.Sprintf("%g %%", 100*e.Wanted)}, fmt.Sprintf("%.3f %%", 100*e.Seen),
			fmt.Sprintf("%.3f to %.3f %%", 100*e.Low, 100*e.High), fmt.Sprint(e.Packets), fmt.Sprint(e.Missed))
	}
	for _, b := range []besides{grid, jitter, loss} {
		if len(b.keys) > 0 {
			tables = append(tables, b.table())
		}
	}
	return tables
}

// offBy is an error of µs.
func offBy(us float64) string {
	if math.Abs(us) >= 999.5 {
		return fmt.Sprintf("%+.1f ms", us/1e3)
	}
	return fmt.Sprintf("%+.0f µs", us)
}

// linkNotes say what the tables leave out.
func linkNotes(out bench.Links) (notes []string) {
	say := func(format string, args ...any) { notes = append(notes, fmt.Sprintf(format, args...)) }
	for _, s := range []string{"wire", "netem", "tbf"} {
		if why, ok := out.Missing[s]; ok {
			say("not measured: %s: %s", s, why)
		}
	}
	for _, m := range []struct{ what, why string }{{"", out.LeftOut}, {"a busy machine: ", out.LoadMissing}, {"what a wire is meant to reach: ", out.WireMissing}} {
		if m.why != "" {
			say("not measured: %s%s", m.what, m.why)
		}
	}
	unmeasured := 0
	first := func(what string, whys []string) {
		if len(whys) > 0 && unmeasured == 0 {
			say("not measured: %s: %s", what, whys[0])
		}
		unmeasured += len(whys)
	}
	for _, e := range out.Errors {
		first(fmt.Sprintf("%s, rate %s, delay %g ms", e.Shaper, topology.Rate(e.Rate), e.Delay), e.Unmeasured)
	}
	for _, e := range out.Jitters {
		first(fmt.Sprintf("%s, delay %g ms, jitter %g ms", e.Shaper, e.Delay, e.Jitter), e.Unmeasured)
	}
	for _, e := range out.Losses {
		first(fmt.Sprintf("%s, loss %g %%", e.Shaper, 100*e.Wanted), e.Unmeasured)
	}
	if unmeasured > 1 {
		say("and %s more", count(unmeasured-1, "thing"))
	}
	if l := out.Load; l != nil {
		say("busy: with %s beside it, which had %.1f processors", count(l.Processes, "endless loop"), l.Cores)
	}
	if o := out.Activity.OthersCores; o != nil {
		say("others kept %.1f processors busy while it was as it is", *o)
	}
	return notes
}

const linkErrors = "errors of rates and delays: the worse of both directions; of jitter and loss, too: between which the truth is with 99 %"

func printLinks(w io.Writer, out bench.Links) error {
	for _, t := range linkTables(out) {
		if err := table(w, t...); err != nil {
			return err
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintln(w, linkErrors)
	for _, n := range linkNotes(out) {
		fmt.Fprintln(w, n)
	}
	if len(out.Goals) > 0 {
		fmt.Fprintln(w, "a wire, medians of its runs, which go from the lower to the higher figure:")
	}
	for _, g := range out.Goals {
		seen, wanted, runs, verdict := goalCells(g)
		if g.Met == nil {
			fmt.Fprintf(w, "goal %s: %s (%s)\n", verdict, g.What, wanted)
			continue
		}
		printGoal(w, *g.Met, "%s: %s (%s; %s)", g.What, seen, wanted, runs)
	}
	if out.Wire != nil {
		fmt.Fprintf(w, "how fast TCP sends is decided here by %s\n", out.Wire.Congestion)
	}
	printCaveat(w, out.Caveat)
	return nil
}

// goalCells are a goal's, of a table.
func goalCells(g bench.Goal) (seen, wanted, runs, verdict string) {
	switch {
	case g.Least != nil && g.Most != nil && *g.Least == *g.Most:
		wanted = digits(*g.Least)
	case g.Least != nil && g.Most != nil:
		wanted = digits(*g.Least) + " to " + digits(*g.Most)
	case g.Least != nil:
		wanted = "at least " + digits(*g.Least)
	case g.Most != nil:
		wanted = "at most " + digits(*g.Most)
	}
	wanted += " " + g.Unit
	if g.Met == nil {
		return "-", wanted, "-", "not judged, " + g.Why
	}
	verdict = "missed"
	if *g.Met {
		verdict = "met"
	}
	return digits(*g.Seen) + " " + g.Unit, wanted, digits(*g.Low) + " to " + digits(*g.High), verdict
}

// digits has three or four of them.
func digits(v float64) string {
	places := 2 // of numbers below 100
	if a := math.Abs(v); a >= 100 {
		places = 0
	} else if a < 1 {
		places = 3
	}
	text := strconv.FormatFloat(v, 'f', places, 64)
	if places == 0 {
		return text
	}
	return strings.TrimSuffix(strings.TrimRight(text, "0"), ".")
}

// markdownLinks prints a result for a document.
func markdownLinks(w io.Writer, out bench.Links) {
	m := out.Machine
	fmt.Fprintf(w, "### %s, %d × %s\n\n", m.Kernel, m.CPUs, m.CPU)
	fmt.Fprintf(w, "`pqlab bench links --json` at %s, pqlab %s", out.Started.UTC().Format("2006-01-02 15:04 UTC"), m.PQLab)
	if m.Revision != "" {
		fmt.Fprintf(w, " of commit %s", m.Revision)
	}
	fmt.Fprintf(w, ", in %.0f s", out.Seconds)
	if m.Virtual != "" && m.Virtual != "no" {
		fmt.Fprintf(w, ", on a virtual machine (%s)", m.Virtual)
	}
	if a := out.Activity; a.LoadBefore != nil && a.LoadAfter != nil {
		fmt.Fprintf(w, ", load average %.1f before what was measured \"as it is\" and %.1f after, pqlab's included", *a.LoadBefore, *a.LoadAfter)
	}
	fmt.Fprint(w, ".\n\n")
	if out.Caveat != "" {
		fmt.Fprintf(w, "**%s.**\n\n", out.Caveat)
	}
	for _, t := range linkTables(out) {
		markdownTable(w, t)
	}
	fmt.Fprintf(w, "- %s\n", linkErrors)
	for _, n := range linkNotes(out) {
		fmt.Fprintf(w, "- %s\n", n)
	}
	fmt.Fprintln(w)
	if len(out.Goals) > 0 {
		rows := [][]string{{"goal of a wire", "median, or share", "wanted", "runs, or 99 %", ""}}
		for _, g := range out.Goals {
			seen, wanted, runs, verdict := goalCells(g)
			rows = append(rows, []string{g.What, seen, wanted, runs, verdict})
		}
		markdownTable(w, rows)
	}
	if out.Wire != nil {
		fmt.Fprintf(w, "How fast TCP sends was decided by %s.\n\n", out.Wire.Congestion)
	}
}

func markdownTable(w io.Writer, rows [][]string) {
	for i, row := range rows {
		fmt.Fprintf(w, "| %s |\n", strings.Join(row, " | "))
		if i == 0 {
			fmt.Fprintf(w, "|%s\n", strings.Repeat("---|", len(row)))
		}
	}
	fmt.Fprintln(w)
}
