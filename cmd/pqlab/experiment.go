package main

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"pqlab/experiments"
	"pqlab/report"
)

func newExperiment() *cobra.Command {
	c := &cobra.Command{
		Use: "experiment", Short: "Repeat what the papers claim, and say whether it holds here",
		Long: "An experiment measures a claim of the papers in labs of its own. Every number that it prints was measured in that run.",
	}
	group(c)
	c.AddCommand(newExperimentOverLinks(), newExperimentNorthSouth())
	return c
}

// reportFlag adds --report to an experiment.
func reportFlag(c *cobra.Command) *string {
	return c.Flags().String("report", "", "write result.json, index.html and the pictures to this directory")
}

// checkReport refuses a directory before the experiment and not after it.
func checkReport(dir string) error {
	if dir == "" {
		return nil
	}
	if err := experiments.CheckDir(dir); err != nil {
		return usageError{fmt.Errorf("--report: %w", err)}
	}
	return nil
}

// printTitled prints a table below its title, and an empty line.
func printTitled(w io.Writer, title string, t report.Table) error {
	fmt.Fprintln(w, title)
	if err := printTable(w, t); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w)
	return err
}

// printExperiment ends what an experiment prints.
func printExperiment(w io.Writer, about experiments.About, method []string, dir string) {
	for _, m := range method {
		fmt.Fprintln(w, m)
	}
	fmt.Fprintln(w, about.Where())
	for _, warning := range about.Warnings {
		fmt.Fprintf(w, "warning: %s\n", warning)
	}
	if dir != "" {
		fmt.Fprintf(w, "report: %s\n", filepath.Join(dir, experiments.HTMLFile))
	}
}

// list reads the values of a flag that takes several, separated by commas.
func list[T any](flag string, values []string, parse func(string) (T, error)) ([]T, error) {
	var all []T
	for _, v := range values {
		t, err := parse(strings.TrimSpace(v))
		if err != nil {
			return nil, usageError{fmt.Errorf("--%s %s: %w", flag, v, err)}
		}
		all = append(all, t)
	}
	if len(all) == 0 {
		return nil, usageError{fmt.Errorf("--%s names none", flag)}
	}
	return all, nil
}
