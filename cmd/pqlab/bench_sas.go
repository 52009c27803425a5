package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"pqlab/bench"
	"pqlab/internal/rootless"
)

func newBenchSAs() *cobra.Command {
	c := &cobra.Command{
		Use: "sas", Short: "Measure how many pairs of SAs a dataplane installs and removes in a second", Args: args(cobra.NoArgs),
		Long: `sas replaces the SAs of one tunnel over and over, each pair before the one before it is removed, as rekeys do. The tunnel
carries nothing. The time runs until no SA is left.`,
		Example: "  pqlab bench sas --dataplane gateway\n  pqlab vm -- pqlab bench sas --dataplane xfrm",
	}
	asJSON := jsonFlag(c)
	runs := c.Flags().Int("runs", 5, "one after the other")
	duration := c.Flags().Duration("duration", 2*time.Second, "of each run")
	dataplane := addDataplaneFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		if *runs < 1 || *duration <= 0 {
			return usageError{fmt.Errorf("--runs %d --duration %v: want at least one run of more than 0", *runs, *duration)}
		}
		if err := rootless.Enter(); err != nil {
			return err
		}
		shown := newProgress(*asJSON)
		out, err := bench.MeasureSAs(c.Context(), dataplane.value, *runs, *duration, shown.show)
		shown.done()
		if err != nil {
			return err
		}
		w := c.OutOrStdout()
		if *asJSON {
			return printJSON(w, out)
		}
		fmt.Fprintf(w, "%.0f pairs of SAs a second, dataplane %s, median of %s\n", out.Median, out.Dataplane, count(*runs, "run"))
		printGoal(w, out.Median >= bench.GoalSAs, "SAs (%.0f of %d pairs a second)", out.Median, bench.GoalSAs)
		printCaveat(w, out.Caveat)
		return nil
	}
	return c
}
