package main

import (
	"fmt"
	"io"
	"runtime"
	"strings"

	"github.com/agext/levenshtein"
	"github.com/spf13/cobra"

	"pqlab/internal/rootless"
	"pqlab/suites"
)

func newTest() *cobra.Command {
	c := &cobra.Command{Use: "test [CLAIM…]", Short: "Verify the claims: all of them, or those named"}
	asJSON := jsonFlag(c)
	mode := c.Flags().String("mode", "emu", "where: emu; vm and hw are not in this version")
	parallel := c.Flags().Int("parallel", runtime.NumCPU(), "claims at once")
	junit := c.Flags().String("junit", "", "write a JUnit report to this file")
	verbose := c.Flags().BoolP("verbose", "v", false, "show what the specs print")
	long := []string{"test runs the specs of each claim:\n"}
	for _, claim := range suites.Claims() {
		long = append(long, fmt.Sprintf("  %-10s %s", claim.Name, claim.Text))
	}
	c.Long = strings.Join(long, "\n")
	c.RunE = func(c *cobra.Command, names []string) error {
		claims, err := choose(names)
		if err != nil {
			return err
		}
		switch {
		case *mode == "vm" || *mode == "hw":
			return unsupported(fmt.Errorf("--mode %s: this version runs the suites in emulation only; --mode emu works", *mode))
		case *mode != "emu":
			return usageError{fmt.Errorf("--mode %q: want emu", *mode)}
		case *parallel < 1:
			return usageError{fmt.Errorf("--parallel %d: want at least 1", *parallel)}
		}
		if err := checkFile("junit", *junit); err != nil {
			return err
		}
		if err := rootless.Enter(); err != nil {
			return err
		}
		config := suites.Config{Mode: *mode, Parallel: *parallel, JUnit: *junit}
		if *verbose {
			config.Verbose = c.ErrOrStderr()
		}
		if !*asJSON {
			config.Done = func(o suites.Outcome) { tell(c.OutOrStdout(), o) }
		}
		outcomes, err := suites.Run(c.Context(), claims, config)
		if err != nil {
			return err
		}
		failed := 0
		for _, o := range outcomes {
			if !o.OK() {
				failed++
			}
		}
		if *asJSON {
			if err := printJSON(c.OutOrStdout(), outcomes); err != nil {
				return err
			}
		} else {
			fmt.Fprintf(c.OutOrStdout(), "%d of %d claims verified\n", len(outcomes)-failed, len(outcomes))
		}
		if failed > 0 {
			return exitError(exitFailed)
		}
		return nil
	}
	return c
}

func choose(names []string) ([]suites.Claim, error) {
	all := suites.Claims()
	if len(names) == 0 {
		return all, nil
	}
	var chosen []suites.Claim
	var known []string
	for _, claim := range all {
		known = append(known, claim.Name)
	}
next:
	for _, name := range names {
		best, distance := "", 3
		for _, claim := range all {
			if claim.Name == name {
				chosen = append(chosen, claim)
				continue next
			}
			if d := levenshtein.Distance(name, claim.Name, nil); d < distance {
				best, distance = claim.Name, d
			}
		}
		if best != "" {
			return nil, usageError{fmt.Errorf("no claim %q; did you mean %s?", name, best)}
		}
		return nil, usageError{fmt.Errorf("no claim %q; there are %s", name, strings.Join(known, ", "))}
	}
	return chosen, nil
}

func tell(w io.Writer, o suites.Outcome) {
	verdict := "verified"
	if !o.OK() {
		verdict = "FAILED"
	}
	fmt.Fprintf(w, "%-10s %-8s %3d of %3d specs, %.1f s\n", o.Claim, verdict, o.Passed, o.Specs, o.Seconds)
	for _, s := range o.Skipped {
		fmt.Fprintf(w, "  skipped: %s: %s\n", s.Spec, s.Reason)
	}
	for _, f := range o.Failures {
		fmt.Fprintf(w, "  failed: %s\n    at %s\n    %s\n", f.Spec, f.At, strings.ReplaceAll(f.Message, "\n", "\n    "))
	}
}
