package main

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"pqlab/experiments"
	"pqlab/internal/rootless"
	"pqlab/lab"
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

// experimentFlags are those that every experiment has.
type experimentFlags struct {
	asJSON, strict *bool
	repeats        *int
	seed           *uint64
	dataplane      *choice
	labs           *labFlags
	dir            *string
}

// addExperimentFlags adds them. repeats is how often what is repeated, if nobody says it.
func addExperimentFlags(c *cobra.Command, repeats int, what, seeds string) *experimentFlags {
	return &experimentFlags{
		asJSON:    jsonFlag(c),
		strict:    c.Flags().Bool("strict", false, "fail (exit 1) where this machine was too busy to keep the schedule of a wire; otherwise that is a warning. Whether links can have their rates here is not asked: run --strict does that"),
		repeats:   c.Flags().Int("repeats", repeats, what),
		seed:      c.Flags().Uint64("seed", 1, seeds),
		dataplane: addDataplaneFlag(c),
		labs:      addLabFlags(c),
		dir:       c.Flags().String("report", "", "write result.json, index.html and the pictures to this directory"),
	}
}

// lab says how the experiment's labs are made.
func (f *experimentFlags) lab() lab.Options {
	o := f.labs.options()
	o.Dataplane = f.dataplane.value
	return o
}

// check refuses what no experiment can be, before anything is made. unshaped says why there must be shapes.
func (f *experimentFlags) check(unshaped string) error {
	switch {
	case *f.repeats < 1 || *f.repeats > 1000:
		return usageError{fmt.Errorf("--repeats %d: want 1 to 1000", *f.repeats)}
	case f.labs.shaper.value == "none":
		return usageError{errors.New("--shaper none: " + unshaped)}
	}
	if *f.dir != "" {
		if err := experiments.CheckDir(*f.dir); err != nil {
			return usageError{fmt.Errorf("--report: %w", err)}
		}
	}
	return nil
}

// outcome is the result of an experiment.
type outcome interface {
	WriteDir(dir string) error
	Punctual() bool
}

// conduct measures, writes the report and prints the result.
func conduct[R outcome](c *cobra.Command, f *experimentFlags, measure func(tell func(done float64, what string)) (R, error), text func(w io.Writer, r R, dir string) error) error {
	if err := rootless.Enter(); err != nil {
		return err
	}
	shown := newProgress(*f.asJSON)
	began := time.Now()
	tell := func(done float64, what string) { shown.show(bar(what, done, left(time.Since(began), done))) }
	tell(0, "first lab")
	out, err := measure(tell)
	shown.done()
	if err != nil {
		return err
	}
	written := *f.dir
	if written != "" {
		if err = out.WriteDir(written); err != nil {
			written = ""
		}
	}
	if *f.asJSON {
		err = errors.Join(err, printJSON(c.OutOrStdout(), out))
	} else {
		err = errors.Join(err, text(c.OutOrStdout(), out, written))
	}
	if err == nil && *f.strict && !out.Punctual() {
		if !*f.asJSON {
			fmt.Fprintln(c.OutOrStdout(), "failed: links keep their schedule")
		}
		return exitError(exitFailed)
	}
	return err
}

// left is how long it takes until the rest is done, if that goes on as it went; negative as long as nobody can know.
func left(passed time.Duration, done float64) time.Duration {
	if done <= 0 {
		return -1
	}
	return time.Duration(float64(passed) * (1 - done) / done)
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
	if about.Punctual() { // else it is a warning
		fmt.Fprintln(w, about.Schedule)
	}
	for _, warning := range about.Warnings {
		fmt.Fprintf(w, "warning: %s\n", warning)
	}
	if dir != "" {
		fmt.Fprintf(w, "report: %s\n", filepath.Join(dir, experiments.HTMLFile))
	}
}

// list reads the values of a flag that takes several, separated by commas.
func list[T comparable](flag string, values []string, parse func(string) (T, error)) ([]T, error) {
	var all []T
	for _, v := range values {
		t, err := parse(strings.TrimSpace(v))
		if err == nil && slices.Contains(all, t) {
			err = errors.New("is given twice")
		}
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
