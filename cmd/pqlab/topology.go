package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"pqlab/topology"
)

func newTopologies() *cobra.Command {
	c := &cobra.Command{Use: "topologies", Short: "List the built-in labs", Args: args(cobra.NoArgs)}
	asJSON := jsonFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		labs := topology.Builtins()
		if *asJSON {
			type lab struct {
				Name        string `json:"name"`
				Description string `json:"description"`
			}
			out := make([]lab, len(labs))
			for i, l := range labs {
				out[i] = lab(l)
			}
			return printJSON(c.OutOrStdout(), out)
		}
		var rows [][]string
		for _, l := range labs {
			rows = append(rows, []string{l.Name, l.Description})
		}
		return table(c.OutOrStdout(), rows...)
	}
	return c
}

func newCheck() *cobra.Command {
	c := &cobra.Command{
		Use: "check TOPOLOGY…", Short: "Validate topologies: built-in names or YAML files",
		Long: "check reads topologies and says of each mistake where it is: file:line:column.\n\nIt makes nothing.",
		Args: args(cobra.MinimumNArgs(1)),
	}
	asJSON := jsonFlag(c)
	c.RunE = func(c *cobra.Command, names []string) error {
		type mistake struct {
			File    string `json:"file"`
			Line    int    `json:"line"`
			Column  int    `json:"column"`
			Kind    string `json:"kind"`
			Message string `json:"message"`
		}
		found, failed := []mistake{}, 0
		for _, name := range names {
			p, err := plan(name)
			var mistakes topology.Errors
			var unreadable usageError
			switch {
			case errors.As(err, &mistakes):
				failed++
				for _, m := range mistakes {
					found = append(found, mistake{m.File, m.Line, m.Column, string(m.Kind), m.Message})
				}
				if !*asJSON {
					fmt.Fprintln(c.ErrOrStderr(), mistakes)
				}
			case errors.As(err, &unreadable):
				failed++
				found = append(found, mistake{File: name, Kind: "file", Message: err.Error()})
				if !*asJSON {
					fmt.Fprintln(c.ErrOrStderr(), "pqlab:", err)
				}
			case err != nil:
				return err
			case !*asJSON:
				fmt.Fprintf(c.OutOrStdout(), "%s: ok, %s, %s, %s\n", name, count(len(p.Nodes), "node"), count(len(p.Links), "link"), count(len(p.Tunnels), "tunnel"))
				for _, note := range p.Notes {
					fmt.Fprintf(c.OutOrStdout(), "  note: %s\n", note)
				}
			}
		}
		if *asJSON {
			if err := printJSON(c.OutOrStdout(), found); err != nil {
				return err
			}
		}
		if failed > 0 {
			return exitError(exitUsage)
		}
		return nil
	}
	return c
}

func plan(name string) (*topology.Plan, error) {
	t, err := load(name)
	if err != nil {
		return nil, err
	}
	return t.Plan()
}

func newSchema() *cobra.Command {
	c := &cobra.Command{
		Use: "schema", Short: "Print the JSON Schema of topologies, for completion in an editor", Args: args(cobra.NoArgs),
	}
	jsonFlag(c) // it is JSON in any case
	c.RunE = func(c *cobra.Command, _ []string) error {
		schema, err := topology.Schema()
		if err != nil {
			return err
		}
		_, err = c.OutOrStdout().Write(append(schema, '\n'))
		return err
	}
	return c
}

func newShow() *cobra.Command {
	c := &cobra.Command{
		Use: "show TOPOLOGY", Short: "Show a lab as text, YAML, a picture or JSON",
		Long: "show fills in what a topology leaves out and shows the lab as it would be made. It makes nothing. With --json what a topology can say has its keys and values; docs/topology.md tells the rest.",
		Args: args(cobra.ExactArgs(1)),
	}
	asJSON := jsonFlag(c)
	asSVG := c.Flags().Bool("svg", false, "print a picture")
	asYAML := c.Flags().Bool("yaml", false, "print the topology as YAML, to start a file of one's own from")
	out := c.Flags().StringP("output", "o", "", "write to this file")
	c.RunE = func(c *cobra.Command, a []string) error {
		if *asJSON && *asSVG || *asJSON && *asYAML || *asSVG && *asYAML {
			return usageError{errors.New("--json, --svg, --yaml: only one at a time")}
		}
		t, err := load(a[0])
		if err != nil {
			return err
		}
		p, err := t.Plan()
		if err != nil {
			return err
		}
		var text []byte
		switch {
		case *asJSON:
			if text, err = p.JSON(); err != nil {
				return err
			}
		case *asSVG:
			text = p.SVG()
		case *asYAML:
			if text, err = t.Marshal(); err != nil {
				return err
			}
		default:
			text = []byte(p.Text())
		}
		if *out != "" {
			if err := os.WriteFile(*out, text, 0o644); err != nil {
				return usageError{fmt.Errorf("--output: %w", err)}
			}
			return nil
		}
		_, err = c.OutOrStdout().Write(text)
		return err
	}
	return c
}
