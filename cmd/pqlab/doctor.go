package main

import (
	"github.com/spf13/cobra"

)

func newDoctor() *cobra.Command {
	c := &cobra.Command{
		Use: "doctor", Short: "Say what this machine can do and what pqlab will use",
		Long: "doctor tries each capability in a scratch namespace and leaves nothing behind.\n\nIt exits with 3 if no lab can be made here.",
		Args: args(cobra.NoArgs),
	}
	asJSON := jsonFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		_ = c
		_ = asJSON
		return nil
	}
	return c
}
