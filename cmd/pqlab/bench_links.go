package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"pqlab/bench"
	"pqlab/internal/rootless"
	"pqlab/topology"
)

func newBenchLinks() *cobra.Command {
	c := &cobra.Command{
		Use: "links", Short: "Measure how far links are off their rate and delay, and what a wire costs", Args: args(cobra.NoArgs),
		Long: `links measures a link of each rate from 1 Mbit/s to 2 Gbit/s and each delay to 200 ms, with each shaper that this machine has,
side by side: on the machine as it is, and with all its processors kept busy. Then it measures what a wire is meant to reach:
TCP without a shape, TCP and UDP at 1 Gbit/s, TCP over Wi-Fi beside what its model gives, a delay of 5 ms, loss of 1 % over 100,000 packets, 100 idle wires, and what a
flooded one holds.`,
		Example: "  pqlab bench links\n  pqlab bench links --quick --json\n  pqlab vm -- pqlab bench links",
	}
	asJSON := jsonFlag(c)
	quick := c.Flags().Bool("quick", false, "few rates and delays, one run, 10,000 packets")
	runs := c.Flags().Int("runs", 3, "of what a wire is meant to reach")
	duration := c.Flags().Duration("duration", 2*time.Second, "of each flow")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if *runs < 1 || *duration <= 0 {
			return usageError{fmt.Errorf("--runs %d --duration %v: want at least one run of more than 0", *runs, *duration)}
		}
		if err := rootless.Enter(); err != nil {
			return err
		}
		packets := bench.GoalLoss
		if *quick {
			*runs, packets = 1, packets/10
		}
		shown := newProgress(*asJSON)
		out, err := bench.MeasureLinks(c.Context(), bench.LinkGrid(*quick), *runs, *duration, packets, shown.show)
		shown.done()
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(c.OutOrStdout(), out)
		}
		return printLinks(c.OutOrStdout(), out, *runs)
	}
	return c
}

func printLinks(w io.Writer, out bench.Links, runs int) error {
	heads := []string{"MACHINE", "RATE", "DELAY"}
	for _, s := range out.Shapers {
		heads = append(heads, s+": DELAY p50", "p99", "RATE")
	}
	rows := [][]string{heads}
	type key struct {
		loaded      bool
		rate, delay float64
	}
	byShaper := map[string]map[key]bench.LinkError{}
	var keys []key
	for _, e := range out.Errors {
		k := key{e.Loaded, e.Rate, e.Delay}
		if len(keys) == 0 || keys[len(keys)-1] != k {
			keys = append(keys, k)
		}
		if byShaper[e.Shaper] == nil {
			byShaper[e.Shaper] = map[key]bench.LinkError{}
		}
		byShaper[e.Shaper][k] = e
	}
	for _, k := range keys {
		rate := "none"
		if k.rate > 0 {
			rate = topology.Rate(k.rate).String()
		}
		row := []string{"as it is", rate, fmt.Sprintf("%g ms", k.delay)}
		if k.loaded {
			row[0] = "busy"
		}
		for _, s := range out.Shapers {
			e, ok := byShaper[s][k]
			if !ok {
				row = append(row, "-", "-", "-")
				continue
			}
			off := "-"
			if e.Off != nil {
				off = fmt.Sprintf("%+.2f %%", 100**e.Off)
			}
			row = append(row, fmt.Sprintf("%+.0f µs", e.P50), fmt.Sprintf("%+.0f µs", e.P99), off)
		}
		rows = append(rows, row)
	}
	if err := table(w, rows...); err != nil {
		return err
	}
	fmt.Fprintln(w, "errors, the worse of both directions; busy: with as many loops beside it as there are processors")
	for _, s := range []string{"wire", "netem", "tbf"} {
		if why, ok := out.Missing[s]; ok {
			fmt.Fprintf(w, "not measured: %s: %s\n", s, why)
		}
	}
	if out.LoadMissing != "" {
		fmt.Fprintf(w, "not measured: a busy machine: %s\n", out.LoadMissing)
	}
	unmeasured := 0
	for _, e := range out.Errors {
		if unmeasured += len(e.Unmeasured); len(e.Unmeasured) > 0 && unmeasured == len(e.Unmeasured) {
			fmt.Fprintf(w, "not measured: %s, rate %s, delay %g ms: %s\n", e.Shaper, topology.Rate(e.Rate), e.Delay, e.Unmeasured[0])
		}
	}
	if unmeasured > 1 {
		fmt.Fprintf(w, "and %s more\n", count(unmeasured-1, "thing"))
	}
	if a := out.Activity; a.OthersCores != nil {
		fmt.Fprintf(w, "others kept %.1f processors busy meanwhile\n", *a.OthersCores)
	}
	if out.Wire != nil {
		printWire(w, *out.Wire, runs)
	}
	printCaveat(w, out.Caveat)
	return nil
}

// printWire prints what the wire is meant to reach, by medians.
func printWire(w io.Writer, g bench.WireGoals, runs int) {
	fmt.Fprintf(w, "a wire, medians of %s:\n", count(runs, "run"))
	unshaped := bench.MedianOf(g.Unshaped)
	printGoal(w, unshaped >= bench.GoalUnshaped, "TCP without a shape: %.2f Gbit/s (at least %.0f)", unshaped/1e9, bench.GoalUnshaped/1e9)
	for _, of := range []struct {
		name   string
		shares []float64
	}{{"TCP", g.TCP}, {"UDP", g.UDP}} {
		if len(of.shares) == 0 {
			fmt.Fprintf(w, "not measured: %s at 1 Gbit/s: this machine did not send as much\n", of.name)
			continue
		}
		share := bench.MedianOf(of.shares)
		printGoal(w, share >= 1-bench.GoalRate && share <= 1+bench.GoalRate, "%s at 1 Gbit/s: %.2f %% of what its frames leave (within %.0f %%)", of.name, 100*share, 100*bench.GoalRate)
	}
	air := bench.MedianOf(g.Air.TCP)
	printGoal(w, air >= bench.GoalAir, "TCP over Wi-Fi (%s, %d MHz): %.2f Gbit/s (at least %.0f), %.0f %% of the %.2f that the model alone gives it",
		g.Air.Station, g.Air.Width, air/1e9, bench.GoalAir/1e9, 100*air/g.Air.Model, g.Air.Model/1e9)
	fmt.Fprintf(w, "how fast TCP sends is decided here by %s\n", g.Congestion)
	p50, p99 := bench.MedianOf(g.P50), bench.MedianOf(g.P99)
	printGoal(w, p50 <= bench.GoalDelayP50, "error of a delay of 5 ms: median %.0f µs (at most %d)", p50, bench.GoalDelayP50)
	printGoal(w, p99 <= bench.GoalDelayP99, "error of a delay of 5 ms: 99 %% within %.0f µs (at most %d)", p99, bench.GoalDelayP99)
	l := g.Loss
	printGoal(w, l.Low <= l.Wanted && l.Wanted <= l.High, "loss of %g %% over %d packets: %.3f %%, the truth within %.3f and %.3f with 99 %%",
		100*l.Wanted, l.Packets, 100*l.Seen, 100*l.Low, 100*l.High)
	if l.Missed > 0 {
		fmt.Fprintf(w, "of those lost the wire did not read %d in time, however often this was tried (%d times)\n", l.Missed, l.Tries)
	}
	cpu := bench.MedianOf(g.IdleCPU)
	printGoal(w, cpu < bench.GoalIdleCPU, "%d idle wires: %.2f %% of a processor (less than %.0f)", g.IdleLinks, 100*cpu, 100*bench.GoalIdleCPU)
	printGoal(w, g.Held <= g.HeldBound, "a flooded link of %v, %g ms: holds %.2f MB (rate × delay × 2 with its queue of %.2f MB and 1 MiB for bursts: %.2f)",
		topology.Rate(g.HeldRate), g.HeldDelay, float64(g.Held)/1e6, float64(g.HeldQueue)/1e6, float64(g.HeldBound)/1e6)
	printGoal(w, g.HeldMemory <= bench.GoalMemory*g.HeldBound, "the same, real packets: takes %.2f MB of memory (at most %d times what the model may hold)",
		float64(g.HeldMemory)/1e6, bench.GoalMemory)
}
