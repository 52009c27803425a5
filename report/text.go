package report

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// textRows bounds each list that WriteText prints; the rest is in the JSON.
const textRows = 12

// WriteText writes a short table that ends with the verdict and, unless dir is empty, with where the report lies.
func (r Result) WriteText(w io.Writer, dir string) error {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	row := func(cells ...string) {
		for i, c := range cells {
			cells[i] = plain(c)
		}
		fmt.Fprintln(t, strings.Join(cells, "\t"))
	}
	// A table's columns are its own: flush before the next begins.
	end := func() {
		_ = t.Flush() // into a strings.Builder
		b.WriteByte('\n')
	}

	row("lab", r.Topology)
	row("kernel", r.Kernel)
	if r.Dataplane != "" { // a lab without tunnels has none
		row("dataplane", r.Dataplane)
	}
	row("shaper", r.Shaper)
	if e := r.exchange(); e != nil {
		by := ""
		if len(r.Tunnels) > 0 && r.Tunnels[0].Keying != "pqlab" && r.Tunnels[0].Keying != "" {
			by = r.Tunnels[0].Keying + ", "
		}
		row("exchange", fmt.Sprintf("%s%s in %s, %s", by, e.Suite, millis(e.Ms), size(e.Bytes)))
	}
	end()

	if len(r.Links) > 0 {
		row("verified link", "from", "wanted", "delay p50", "p99", "loss", "rate")
		for _, l := range r.Links[:min(textRows, len(r.Links))] {
			row(l.cells()...)
		}
		more(row, len(r.Links), "directions of links")
		end()
	}
	if len(r.Traffic) > 0 {
		row("traffic", "proto", "streams", "rate", "sent", "lost", "reordered", "latency p50", "p99")
		for _, f := range r.Traffic[:min(textRows, len(r.Traffic))] {
			p50, p99 := "-", "-"
			if f.Latency != nil {
				p50, p99 = micros(f.Latency.P50), micros(f.Latency.P99)
			}
			row(f.way(), f.protocol(), fmt.Sprint(f.Streams), f.rate(), f.sent(), count(f.Lost),
				count(f.Reordered), p50, p99)
		}
		more(row, len(r.Traffic), "flows")
		end()
	}
	if len(r.Rekeys) > 0 {
		row("rekeys", "trigger", "at", "took", "old SAs' packets that did not arrive")
		for _, k := range r.Rekeys[:min(textRows, len(r.Rekeys))] {
			row(k.Tunnel, k.Trigger, moment(k.At), millis(k.Ms), count(k.Lost))
		}
		more(row, len(r.Rekeys), "rekeys")
		end()
		if r.RekeyNote != "" { // with the figures that it explains
			fmt.Fprintf(&b, "  %s\n", plain(r.RekeyNote))
		}
	}
	for _, warning := range r.Warnings {
		fmt.Fprintf(&b, "warning: %s\n", plain(warning))
	}
	for _, c := range r.Checks {
		if !c.OK {
			fmt.Fprintf(&b, "failed: %s: %s\n", plain(c.Name), plain(c.Detail))
		}
	}
	fmt.Fprintf(&b, "%s: %s\n", r.Verdict(), r.verdictDetail())
	if dir != "" {
		fmt.Fprintf(&b, "report: %s\n", plain(dir))
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("report as text: %w", err)
	}
	return nil
}

func more(row func(...string), n int, what string) {
	if n > textRows {
		row(fmt.Sprintf("… %d more %s", n-textRows, what))
	}
}

func (r Result) verdictDetail() string {
	switch n := r.failures(); {
	case len(r.Checks) == 0:
		return "nothing was checked" + r.idle() + r.verified()
	case n == 0:
		return plural(len(r.Checks), "check holds", "checks hold") + r.verified()
	default:
		return fmt.Sprintf("%d of %d checks failed", n, len(r.Checks)) + r.verified()
	}
}
