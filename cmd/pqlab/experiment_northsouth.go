package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"pqlab/experiments/northsouth"
	"pqlab/topology"
)

func newExperimentNorthSouth() *cobra.Command {
	c := &cobra.Command{
		Use: northsouth.Name, Short: "A Wi-Fi client's tunnel to a DPU: the paper's throughput beside pqlab's, and what it depends on",
		Args: args(cobra.NoArgs),
		Long: `north-south repeats the built-in lab of that name over seeds, with its Wi-Fi's airtime, and puts what its tunnel carries beside
what the paper reports (0.486 Gbit/s; in one sentence 0.468). Then it changes one thing at a time: the modulation (MCS), the size of A-MPDUs,
the distance, the number of stations that send at once, the MTU. All of it is measured in this run.`,
		Example: "  pqlab experiment north-south --quick\n  pqlab experiment north-south --stations 1,2,4,8 --mcs= --ampdu= --distances= --mtus= --report out/",
	}
	quick := c.Flags().Bool("quick", false, "few settings, one run of each: less than a minute")
	mcs := c.Flags().StringSlice("mcs", []string{"3", "5", "7", "8", "9"}, "fixed modulation and coding schemes; without, rate control chooses")
	ampdu := c.Flags().StringSlice("ampdu", []string{"8", "16", "24", "32", "64"}, "MPDUs in an A-MPDU at most")
	distances := c.Flags().StringSlice("distances", []string{"2", "10", "20", "40"}, "of the client from the access point, in metres")
	stations := c.Flags().StringSlice("stations", []string{"1", "2", "4", "8"}, "that send at once, each through a tunnel of its own")
	mtus := c.Flags().StringSlice("mtus", []string{"1350", "1420", "1500"}, "of the air and of what lies behind it")
	duration := c.Flags().Duration("duration", 2*time.Second, "of each flow")
	all := addExperimentFlags(c, 3, "runs of each setting, each with a seed of its own", "of the first run")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if *quick {
			for flag, value := range map[string]func(){
				"mcs":       func() { *mcs = []string{"7", "9"} },
				"ampdu":     func() { *ampdu = []string{"16", "64"} },
				"distances": func() { *distances = []string{"20"} },
				"stations":  func() { *stations = []string{"2"} },
				"mtus":      func() { *mtus = []string{"1350"} },
				"repeats":   func() { *all.repeats = 1 },
			} {
				if !c.Flags().Changed(flag) {
					value()
				}
			}
		}
		o := northsouth.Options{
			Repeats: *all.repeats, Duration: *duration, Seed: *all.seed, Lab: all.lab(), Version: version,
			Command: append([]string{"pqlab"}, os.Args[1:]...),
		}
		var wrong [5]error
		o.MCS, wrong[0] = some("mcs", *mcs, whole)
		o.AMPDU, wrong[1] = some("ampdu", *ampdu, whole)
		o.Distances, wrong[2] = some("distances", *distances, metres)
		o.Stations, wrong[3] = some("stations", *stations, whole)
		o.MTUs, wrong[4] = some("mtus", *mtus, whole)
		if err := errors.Join(wrong[:]...); err != nil {
			return err
		}
		for _, n := range o.Stations {
			if n < 1 || n > 32 {
				return usageError{fmt.Errorf("--stations %d: want 1 to 32", n)}
			}
		}
		if *duration < 100*time.Millisecond || *duration > time.Hour {
			return usageError{fmt.Errorf("--duration %v: want 100ms to 1h", *duration)}
		}
		if err := all.check("a link without airtime is not what is to be measured"); err != nil {
			return err
		}
		return conduct(c, all, func(tell func(float64, string)) (northsouth.Result, error) {
			o.Progress = tell
			return northsouth.Measure(c.Context(), o)
		}, printNorthSouth)
	}
	return c
}

// metres reads "20" as "20m".
func metres(s string) (float64, error) {
	if !strings.HasSuffix(s, "m") {
		s += "m"
	}
	return topology.ParseDistance(s)
}

// whole reads a number as topologies have it.
func whole(s string) (int, error) {
	n, err := topology.ParseCount(s)
	if err == nil && n > math.MaxInt32 {
		err = errors.New("is more than a setting can be")
	}
	return int(n), err
}

// some is list for what need not be varied.
func some[T comparable](flag string, values []string, parse func(string) (T, error)) ([]T, error) {
	if len(values) == 0 {
		return nil, nil
	}
	return list(flag, values, parse)
}

func printNorthSouth(w io.Writer, r northsouth.Result, dir string) error {
	errs := []error{
		printTitled(w, "paper and pqlab", r.Beside()), printTitled(w, "all settings", r.Settings()), printTitled(w, "what it depends on", r.Depends()),
	}
	printExperiment(w, r.About, r.Method(), dir)
	return errors.Join(errs...)
}
