package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"pqlab/bench"
	"pqlab/pqc"
)

func newBenchExchange() *cobra.Command {
	c := &cobra.Command{
		Use: "exchange", Short: "Measure whole key exchanges, and split their CPU time by step", Args: args(cobra.NoArgs),
		Long: `exchange makes key exchanges over TCP on the loopback interface, both ends on one core, and takes turns with
the primitives that they are made of, each alone: a TLS 1.3 handshake with certificates on both sides, key generation,
signing, verifying, encapsulating, decapsulating, and combining with the derivation of the keys. The ratio tells what
an exchange costs beside them. Then all cores make exchanges at once.`,
		Example: "  pqlab bench exchange\n  pqlab bench exchange --suite dilithium3+kyber768 --duration 10s --json",
	}
	asJSON := jsonFlag(c)
	names := c.Flags().StringSlice("suite", nil, "repeatable; the default is one for each signature scheme")
	identity := choice{value: "fresh", known: []string{"fresh", "pinned"}}
	c.Flags().Var(&identity, "identity", "fresh (a signature key for each exchange) or pinned")
	iterations := c.Flags().Int("iterations", 0, "rounds of each suite; without --duration they take as long as they take")
	duration := c.Flags().Duration("duration", 2*time.Second, "of each suite")
	c.RunE = func(c *cobra.Command, _ []string) error {
		o := bench.ExchangeOptions{
			Suites: bench.RepresentativeSuites(), Pinned: identity.value == "pinned", Iterations: *iterations, Duration: *duration,
		}
		if c.Flags().Changed("iterations") && !c.Flags().Changed("duration") {
			o.Duration = 0
		}
		if o.Iterations < 0 || o.Duration < 0 || o.Iterations == 0 && o.Duration == 0 {
			return usageError{fmt.Errorf("--iterations %d --duration %v: want more than 0 of one of them", *iterations, *duration)}
		}
		if c.Flags().Changed("suite") {
			o.Suites = nil
			for _, n := range *names {
				s, err := pqc.ParseSuite(n)
				if err != nil {
					return usageError{fmt.Errorf("--suite %s: %w", n, err)}
				}
				o.Suites = append(o.Suites, s)
			}
		}
		if len(o.Suites) == 0 {
			return usageError{fmt.Errorf("--suite names none")}
		}
		shown := newProgress(*asJSON)
		out, err := bench.MeasureExchange(c.Context(), o, shown.show)
		shown.done()
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(c.OutOrStdout(), out)
		}
		return printExchanges(c.OutOrStdout(), out)
	}
	return c
}

func printExchanges(w io.Writer, out bench.Exchanges) error {
	rates := [][]string{{"SUITE", "A SECOND", "AND CORE", "TOTAL", "ALONE", "RATIO", "BYTES OUT", "BYTES IN", "ROUND TRIPS", "SAMPLES", "NOISY"}}
	split := [][]string{{"µs", "", "TLS", "KEYGEN", "SIGN", "VERIFY", "ENCAPS", "DECAPS", "COMBINE", "REST"}}
	µs := func(v float64) string { return fmt.Sprintf("%.0f", v) }
	for _, e := range out.Suites {
		rates = append(rates, []string{
			e.Suite, fmt.Sprintf("%.0f", e.PerSecond), fmt.Sprintf("%.0f", e.PerCore), µs(e.Total) + " µs", µs(e.Sum) + " µs",
			fmt.Sprintf("%.2f", e.Ratio), fmt.Sprint(e.Wire.Initiator), fmt.Sprint(e.Wire.Responder), fmt.Sprint(e.Wire.RoundTrips),
			fmt.Sprint(len(e.Samples)), fmt.Sprintf("%d%%", 100*e.Noisy/len(e.Samples)),
		})
		for _, row := range []struct {
			suite, what string
			s           bench.Steps
		}{{e.Suite, "in the exchange", e.Steps}, {"", "alone", e.Primitives}} {
			s := row.s
			split = append(split, []string{
				row.suite, row.what, µs(s.TLS), µs(s.Keygen), µs(s.Sign), µs(s.Verify), µs(s.Encaps), µs(s.Decaps), µs(s.Combine), µs(s.Rest),
			})
		}
	}
	if err := table(w, rates...); err != nil {
		return err
	}
	fmt.Fprintln(w)
	if err := table(w, split...); err != nil {
		return err
	}
	fmt.Fprintf(w, "identity %s; CPU time of both ends on one core, medians; rates with %s at work; noisy samples lost the core, and count\n",
		out.Identity, count(out.Cores, "core"))
	for _, e := range out.Suites {
		if e.Suite == bench.GoalExchangeSuite && out.Identity == "fresh" {
			verdict := "met"
			if e.Ratio > bench.GoalExchange {
				verdict = "missed"
			}
			fmt.Fprintf(w, "goal %s: %s costs %.2f of its primitives (at most %.2f)\n", verdict, e.Suite, e.Ratio, bench.GoalExchange)
		}
	}
	return nil
}
