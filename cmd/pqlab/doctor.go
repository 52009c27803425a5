package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"pqlab/internal/rootless"
	"pqlab/probe"
)

// doctorTimeout bounds all probes together.
const doctorTimeout = 5 * time.Second

func newDoctor() *cobra.Command {
	c := &cobra.Command{
		Use: "doctor", Short: "Say what this machine can do and what pqlab will use",
		Long: "doctor tries each capability in a scratch namespace and leaves nothing behind.\n\nIt exits with 3 if no lab can be made here.",
		Args: args(cobra.NoArgs),
	}
	asJSON := jsonFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		entered := rootless.Enter() // without it most probes fail, and say so
		ctx, cancel := context.WithTimeout(c.Context(), doctorTimeout)
		defer cancel()
		found := probe.All(ctx)
		_, plane := probe.Dataplane("auto")
		if *asJSON {
			if err := printJSON(c.OutOrStdout(), found); err != nil {
				return err
			}
		} else if err := doctorTable(c, found); err != nil {
			return err
		}
		for _, err := range []error{entered, plane} {
			if err != nil {
				return unsupported(fmt.Errorf("no lab can be made here: %w", err))
			}
		}
		return nil
	}
	return c
}

func doctorTable(c *cobra.Command, found []probe.Capability) error {
	rows := [][]string{{"CAPABILITY", "FOUND", "HOW", "WHAT FOLLOWS"}}
	for _, f := range found {
		answer, follows := "yes", f.Use
		if f.Seen != "" {
			answer = f.Seen
		}
		if !f.Found {
			answer = "no"
		}
		rows = append(rows, []string{f.Name, answer, f.How, follows})
	}
	if err := table(c.OutOrStdout(), rows...); err != nil {
		return err
	}
	for _, f := range found {
		if f.Why != nil {
			fmt.Fprintf(c.OutOrStdout(), "\n%s: %v\n", f.Name, f.Why)
		}
	}
	return nil
}
