package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"pqlab/bench"
	"pqlab/internal/rootless"
)

func newBench() *cobra.Command {
	c := &cobra.Command{Use: "bench", Short: "Measure how fast pqlab is"}
	group(c)
	c.AddCommand(newBenchCrypto(), newBenchExchange())
	c.AddCommand(takeDownTheirOwn(newBenchLabs(), newBenchTunnel(), newBenchSAs(), newBenchLinks())...)
	return c
}

func newBenchLabs() *cobra.Command {
	c := &cobra.Command{
		Use: "labs", Short: "Time labs up and down: the pair, and a chain of nodes; beside Mininet where it is installed",
		Args: args(cobra.NoArgs),
	}
	asJSON := jsonFlag(c)
	nodes := c.Flags().Int("nodes", 1000, "in the chain")
	runs := c.Flags().Int("runs", 5, "of each, in turns")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if *nodes < 2 || *nodes > 10000 || *runs < 1 {
			return usageError{fmt.Errorf("--nodes %d --runs %d: want 2 to 10000 nodes and at least one run", *nodes, *runs)}
		}
		if err := rootless.Enter(); err != nil {
			return err
		}
		shown := newProgress(*asJSON)
		out, err := bench.MeasureLabs(c.Context(), *nodes, *runs, shown.show)
		shown.done()
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(c.OutOrStdout(), out)
		}
		up, down := func(l bench.Lab) float64 { return l.Up }, func(l bench.Lab) float64 { return l.Down }
		row := func(what string, n int, labs []bench.Lab) []string {
			rss := "-"
			if m := bench.Median(labs, func(l bench.Lab) float64 { return float64(l.RSS) }); m > 0 {
				rss = fmt.Sprintf("%.0f MiB", m/(1<<20))
			}
			u, d := bench.Median(labs, up), bench.Median(labs, down)
			return []string{
				what, fmt.Sprint(n), fmt.Sprintf("%.1f ms", u), fmt.Sprintf("%.2f ms", u/float64(n)),
				fmt.Sprintf("%.1f ms", d), fmt.Sprintf("%.2f ms", d/float64(n)), rss,
			}
		}
		rows := [][]string{
			{"LAB", "NODES", "UP", "A NODE", "DOWN", "A NODE", "PEAK RSS"},
			row("pair, with agents and tunnel", 2, out.Pair), row("chain", out.Nodes, out.Chain),
		}
		if len(out.Mininet) > 0 {
			rows = append(rows, row("Mininet's chain", out.MininetNodes, out.Mininet))
		}
		if err := table(c.OutOrStdout(), rows...); err != nil {
			return err
		}
		if out.MininetMissing != "" {
			fmt.Fprintf(c.OutOrStdout(), "not measured: %s\n", out.MininetMissing)
		}
		fmt.Fprintln(c.OutOrStdout(), medians(*runs))
		goal := func(what string, got, limit float64, unit string) {
			verdict := "met"
			if got > limit {
				verdict = "missed"
			}
			fmt.Fprintf(c.OutOrStdout(), "goal %s: %s (%.0f of %.0f %s)\n", verdict, what, got, limit, unit)
		}
		goal("pair up", bench.Median(out.Pair, up), float64(bench.GoalPairUp.Milliseconds()), "ms")
		if out.Nodes == bench.GoalChain {
			goal("chain up", bench.Median(out.Chain, up), float64(bench.GoalChainUp.Milliseconds()), "ms")
			rss := bench.Median(out.Chain, func(l bench.Lab) float64 { return float64(l.RSS) })
			goal("chain's memory", rss/(1<<20), bench.GoalChainRSS/(1<<20), "MiB")
		}
		return nil
	}
	return c
}
