package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"pqlab/bench"
	"pqlab/bench/crypto"
	"pqlab/internal/rootless"
)

func newBenchLinks() *cobra.Command {
	c := &cobra.Command{
		Use: "links", Short: "Measure how far links are off what they are asked for, and what a wire costs",
		Long: `links measures a link of each rate from 1 Mbit/s to 2 Gbit/s and each delay to 200 ms, links whose delay varies and links
that lose packets, with each shaper that this machine has, side by side: on the machine as it is, and with all its processors kept
busy. Then it measures what a wire is meant to reach: TCP without a shape, TCP and UDP at 1 Gbit/s, TCP over Wi-Fi beside what its
model gives, a delay of 5 ms, loss of 1 % over 100,000 packets, 100 idle wires, and what a flooded one holds. On an emulated
processor it measures no rate above 100 Mbit/s and judges no goal.
With --markdown it measures nothing: it prints what files have that --json wrote, one of each machine, as tables.`,
		Example: "  pqlab bench links\n  pqlab bench links --quick --json\n  pqlab vm -- pqlab bench links --json > guest.json\n" +
			"  pqlab bench links --markdown host.json guest.json",
	}
	asJSON := jsonFlag(c)
	quick := c.Flags().Bool("quick", false, "few rates and delays, one run, 10,000 packets")
	runs := c.Flags().Int("runs", 3, "of what a wire is meant to reach")
	duration := c.Flags().Duration("duration", 2*time.Second, "of each flow")
	strict := c.Flags().Bool("strict", false, "fail (exit 1) where a goal was missed; what was not judged is none")
	markdown := c.Flags().Bool("markdown", false, "print the results in the files that are named as Markdown")
	c.Args = func(c *cobra.Command, a []string) error {
		if *markdown {
			return args(cobra.MinimumNArgs(1))(c, a)
		}
		return args(cobra.NoArgs)(c, a)
	}
	c.RunE = func(c *cobra.Command, files []string) error {
		if *markdown {
			for _, flag := range []string{"json", "quick", "runs", "duration"} {
				if c.Flags().Changed(flag) {
					return usageError{fmt.Errorf("--%s: --markdown measures nothing", flag)}
				}
			}
			var results []bench.Links
			for _, name := range files {
				r, err := readLinks(name)
				if err != nil {
					return usageError{err}
				}
				results = append(results, r)
			}
			for _, r := range results {
				markdownLinks(c.OutOrStdout(), r)
			}
			return goalsMet(*strict, results...)
		}
		if *runs < 1 || *duration <= 0 {
			return usageError{fmt.Errorf("--runs %d --duration %v: want at least one run of more than 0", *runs, *duration)}
		}
		if err := rootless.Enter(); err != nil {
			return err
		}
		o := bench.LinkOptions{Machine: crypto.ThisMachine(version), Packets: bench.GoalLoss, Runs: *runs, Duration: *duration}
		if *quick {
			o.Runs = 1
		}
		if *quick || o.Machine.Emulated {
			o.Packets /= 10
		}
		o.Grid = bench.LinkGrid(*quick, o.Machine.Emulated)
		shown := newProgress(*asJSON)
		out, err := bench.MeasureLinks(c.Context(), o, shown.show)
		shown.done()
		if err != nil {
			return err
		}
		print := printLinks
		if *asJSON {
			print = func(w io.Writer, out bench.Links) error { return printJSON(w, out) }
		}
		if err := print(c.OutOrStdout(), out); err != nil {
			return err
		}
		return goalsMet(*strict, out)
	}
	return c
}

// goalsMet is an error where that is asked for and they are not.
func goalsMet(strict bool, results ...bench.Links) error {
	for _, r := range results {
		if missed := r.Missed(); strict && len(missed) > 0 {
			return fmt.Errorf("%s missed, first: %s", count(len(missed), "goal"), missed[0].What)
		}
	}
	return nil
}

// readLinks reads what --json wrote.
func readLinks(name string) (out bench.Links, err error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return out, err
	}
	if err := json.Unmarshal(text, &out); err != nil {
		return out, fmt.Errorf("%s: not a result of pqlab bench links --json: %w", name, err)
	}
	if len(out.Shapers) == 0 || len(out.Errors) == 0 || out.Machine.Kernel == "" {
		return out, fmt.Errorf("%s: not a result of pqlab bench links --json, or one of an older version: it has no machine or no links", name)
	}
	return out, nil
}
