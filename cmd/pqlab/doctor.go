package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"pqlab/internal/rootless"
	"pqlab/probe"
)

func newDoctor() *cobra.Command {
	c := &cobra.Command{
		Use: "doctor", Short: "Say what this machine can do and what pqlab will use",
		Long: `doctor tries each capability in a scratch namespace and leaves nothing behind. What it could not find out it
calls unknown, and says why: that is neither yes nor no.

It exits with 3 if no lab can be made here, and with 1 if nobody knows what tunnels would use.`,
		Args: args(cobra.NoArgs),
	}
	asJSON := jsonFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		entered := rootless.Enter() // without it most probes fail, and say so
		found := probe.All(c.Context())
		_, plane := probe.Among(found, "auto")
		if *asJSON {
			if err := printJSON(c.OutOrStdout(), found); err != nil {
				return err
			}
		} else if err := doctorTable(c, found); err != nil {
			return err
		}
		var missing *probe.NotSupported
		switch {
		case entered != nil:
			return unsupported(fmt.Errorf("no lab can be made here: %w", entered))
		case errors.As(plane, &missing):
			return fmt.Errorf("no lab can be made here: %w", plane)
		}
		return plane
	}
	return c
}

func doctorTable(c *cobra.Command, found []probe.Capability) error {
	rows := [][]string{{"CAPABILITY", "FOUND", "HOW", "WHAT FOLLOWS"}}
	for _, f := range found {
		rows = append(rows, []string{f.Name, answer(f), f.How, f.Use})
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

// answer is what doctor's table says of a capability in a word or two.
func answer(c probe.Capability) string {
	var failed *probe.Failure
	switch {
	case c.Found && c.Seen != "":
		return c.Seen
	case c.Found:
		return "yes"
	case c.Known():
		return "no"
	case errors.As(c.Why, &failed):
		return fmt.Sprintf("unknown: probe failed: %v", failed.Err)
	}
	return fmt.Sprintf("unknown: %v", c.Why)
}
