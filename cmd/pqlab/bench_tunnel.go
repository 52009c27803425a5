package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"pqlab/bench"
	"pqlab/internal/rootless"
)

func newBenchTunnel() *cobra.Command {
	c := &cobra.Command{
		Use: "tunnel", Short: "Measure TCP through the pair's tunnel, beside the same lab without it", Args: args(cobra.NoArgs),
		Long: `tunnel sends TCP through the pair lab, in turns without a tunnel and with it; and, where the kernel's dataplane carries
it, with the same tunnel made by iproute2 in its place: SAs and policies, and nothing else of pqlab's.`,
		Example: "  pqlab bench tunnel\n  pqlab vm -- pqlab bench tunnel --dataplane xfrm",
	}
	asJSON := jsonFlag(c)
	runs := c.Flags().Int("runs", 3, "of each, in turns")
	duration := c.Flags().Duration("duration", 3*time.Second, "of each run")
	dataplane := addDataplaneFlag(c)
	labs := addLabFlags(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		if *runs < 1 || *duration <= 0 {
			return usageError{fmt.Errorf("--runs %d --duration %v: want at least one run of more than 0", *runs, *duration)}
		}
		if err := rootless.Enter(); err != nil {
			return err
		}
		shown := newProgress(*asJSON)
		o := labs.options()
		o.Dataplane = dataplane.value
		out, err := bench.MeasureTunnel(c.Context(), []int{1, 4}, *runs, *duration, o, shown.show)
		shown.done()
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(c.OutOrStdout(), out)
		}
		return printTunnel(c.OutOrStdout(), out, *runs)
	}
	return c
}

// addDataplaneFlag lets choose a dataplane of this machine.
func addDataplaneFlag(c *cobra.Command) *choice {
	f := &choice{value: "auto", known: []string{"auto", "gateway", "xfrm"}}
	c.Flags().Var(f, "dataplane", "auto, gateway or xfrm")
	return f
}

func printTunnel(w io.Writer, out bench.Tunnel, runs int) error {
	rate := func(v float64) string { return fmt.Sprintf("%.2f Gbit/s", v/1e9) }
	rows := [][]string{{"STREAMS", "PLAIN", "TUNNEL", "OF PLAIN"}}
	byHand := false
	for _, m := range out.Medians {
		row := []string{fmt.Sprint(m.Streams), rate(m.Plain), rate(m.Encrypted), fmt.Sprintf("%.2f", m.OfPlain)}
		if m.HandMade > 0 {
			byHand = true
			row = append(row, rate(m.HandMade), fmt.Sprintf("%.3f", m.OfHandMade))
		}
		rows = append(rows, row)
	}
	if byHand {
		rows[0] = append(rows[0], "MADE BY HAND", "OF THAT")
	}
	if err := table(w, rows...); err != nil {
		return err
	}
	fmt.Fprintf(w, "dataplane %s, shaper %s, %s\n", out.Dataplane, out.Shaper, medians(runs))
	if out.HandMadeMissing != "" {
		fmt.Fprintf(w, "not measured: %s\n", out.HandMadeMissing)
	}
	for _, m := range out.Medians {
		if m.HandMade > 0 {
			printGoal(w, m.OfHandMade >= bench.GoalHandMade, "%s through the tunnel: %.3f of the one made by hand (at least %.2f); half of the runs %.2f to %.2f",
				count(m.Streams, "stream"), m.OfHandMade, bench.GoalHandMade, m.Quartiles[0], m.Quartiles[1])
		}
	}
	printCaveat(w, out.Caveat)
	return nil
}

func printGoal(w io.Writer, met bool, format string, args ...any) {
	verdict := "met"
	if !met {
		verdict = "missed"
	}
	fmt.Fprintf(w, "goal %s: %s\n", verdict, fmt.Sprintf(format, args...))
}

func printCaveat(w io.Writer, text string) {
	if text != "" {
		fmt.Fprintf(w, "caveat: %s\n", text)
	}
}
