package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"pqlab/experiments/overlinks"
	"pqlab/nodes"
	"pqlab/pqc"
	"pqlab/topology"
)

// thisMachine is what --devices calls ends that are as fast as this machine.
const thisMachine = "none"

func newExperimentOverLinks() *cobra.Command {
	c := &cobra.Command{
		Use: overlinks.Name, Short: "Time to a tunnel, suite by suite, over links of all sorts; and where the border between Falcon and Dilithium lies",
		Args: args(cobra.NoArgs),
		Long: `exchange-over-links keys tunnels over links of each rate, delay and loss, with each suite in turn, between devices of each
kind, and says where Falcon is faster than what else has its security level, and where it is slower. A difference is told
only where it is significant. All of it is computed from what was measured in this run.`,
		Example: "  pqlab experiment exchange-over-links --quick\n" +
			"  pqlab experiment exchange-over-links --rates 256kbit/s,1Mbit/s --delays 300ms --losses 0,5% --report out/",
	}
	quick := c.Flags().Bool("quick", false, "few links and few repeats: less than a minute")
	suites := c.Flags().StringSlice("suites", []string{"falcon512+kyber512", "dilithium2+kyber512", "dilithium3+kyber768", "falcon1024+kyber1024", "dilithium5+kyber1024"},
		"to measure, in turns")
	rates := c.Flags().StringSlice("rates", []string{"1Mbit/s", "10Mbit/s", "100Mbit/s", "1Gbit/s"}, "of the link, each way")
	delays := c.Flags().StringSlice("delays", []string{"1ms", "20ms", "200ms"}, "of the link, one way")
	losses := c.Flags().StringSlice("losses", []string{"0", "1%", "10%"}, "of the link: share of packets, each way")
	devices := c.Flags().StringSlice("devices", []string{thisMachine, "jetson-nano/bluefield-2"},
		"profiles of initiator/responder, one core of each; "+thisMachine+": as fast as this machine")
	lossy := c.Flags().Int("lossy-repeats", 0, "exchanges of each suite where the loss is 1 % or more and times scatter by TCP's timeouts (default three times --repeats; with --quick as many)")
	limit := c.Flags().Duration("limit", 10*time.Second, "after which an exchange counts as never ended")
	identity := choice{value: "fresh", known: []string{"fresh", "pinned"}}
	c.Flags().Var(&identity, "identity", "fresh (a signature key for each exchange) or pinned")
	all := addExperimentFlags(c, 15, "exchanges of each suite at each link", "of what the links lose")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if *quick {
			for flag, value := range map[string]func(){
				"rates":   func() { *rates = []string{"1Mbit/s", "10Mbit/s", "1Gbit/s"} },
				"delays":  func() { *delays = []string{"1ms", "20ms"} },
				"losses":  func() { *losses = []string{"0", "1%"} },
				"suites":  func() { *suites = []string{"falcon512+kyber512", "dilithium2+kyber512"} },
				"devices": func() { *devices = []string{thisMachine} },
				"repeats": func() { *all.repeats = 12 },
			} {
				if !c.Flags().Changed(flag) {
					value()
				}
			}
		}
		switch {
		case c.Flags().Changed("lossy-repeats"):
			if *lossy < 1 || *lossy > 1000 {
				return usageError{fmt.Errorf("--lossy-repeats %d: want 1 to 1000", *lossy)}
			}
		case *quick:
			*lossy = *all.repeats
		default:
			*lossy = 3 * *all.repeats
		}
		o := overlinks.Options{
			Repeats: *all.repeats, Lossy: *lossy, Limit: *limit, Pinned: identity.value == "pinned", Seed: *all.seed, Version: version,
			Command: append([]string{"pqlab"}, os.Args[1:]...), Lab: all.lab(),
		}
		var wrong [5]error
		o.Suites, wrong[0] = list("suites", *suites, pqc.ParseSuite)
		o.Rates, wrong[1] = list("rates", *rates, topology.ParseRate)
		o.Delays, wrong[2] = list("delays", *delays, parseDelay)
		o.Losses, wrong[3] = list("losses", *losses, parseLoss)
		o.Devices, wrong[4] = list("devices", *devices, parseDevices)
		if err := errors.Join(wrong[:]...); err != nil {
			return err
		}
		if *limit < 100*time.Millisecond || *limit > time.Hour {
			return usageError{fmt.Errorf("--limit %v: want 100ms to 1h", *limit)}
		}
		if err := all.check("links without delay and loss are not what is to be measured"); err != nil {
			return err
		}
		return conduct(c, all, func(tell func(float64, string)) (overlinks.Result, error) {
			o.Progress = tell
			return overlinks.Measure(c.Context(), o)
		}, printOverLinks)
	}
	return c
}

// parseLoss reads a share as a link's loss has it.
func parseLoss(s string) (float64, error) {
	shape, err := parseShape("loss", s)
	return shape.Loss, err
}

// parseDelay reads a time as a link's delay has it.
func parseDelay(s string) (time.Duration, error) {
	shape, err := parseShape("delay", s)
	return shape.Delay, err
}

// parseShape reads one key of the experiment's link.
func parseShape(key, value string) (topology.Shape, error) {
	if value == topology.Clear || value == "0" { // which a topology has not; 0 takes none away
		return topology.Shape{}, nil
	}
	change, err := topology.ParseChange([]string{key + "=" + value})
	if err != nil {
		return topology.Shape{}, err
	}
	return change.Apply(topology.PlannedLink{Link: topology.Link{Name: "of the experiment"}}, topology.Shape{})
}

// parseDevices reads "none", "jetson-nano" for both ends, or "jetson-nano/bluefield-2".
func parseDevices(s string) (d overlinks.Devices, err error) {
	a, b, two := strings.Cut(s, "/")
	if !two {
		b = a
	}
	for end, name := range map[*string]string{&d.Initiator: a, &d.Responder: b} {
		if name == thisMachine {
			continue
		}
		if !slices.Contains(topology.Profiles(), name) {
			return d, fmt.Errorf("%w %q; known are %s, %s", nodes.ErrUnknownProfile, name, thisMachine, strings.Join(topology.Profiles(), ", "))
		}
		*end = name
	}
	return d, nil
}

func printOverLinks(w io.Writer, r overlinks.Result, dir string) error {
	var errs []error
	for _, d := range r.Devices() {
		errs = append(errs, printTitled(w, "time to a tunnel, "+d.String(), r.Times(d)))
	}
	for _, p := range r.Pairs() {
		errs = append(errs, printTitled(w, fmt.Sprintf("%v, %v: who is faster", p, p.Devices), r.Map(p)),
			printTitled(w, "the border", r.Limits(p)))
	}
	if len(r.Advice) > 0 {
		errs = append(errs, printTitled(w, "does the paper's advice hold?", r.Verdicts()))
	} else {
		fmt.Fprintln(w, "no border: no two of the suites are a Falcon and another signature of its security level with a KEM of one size")
	}
	printExperiment(w, r.About, r.Method(), dir)
	return errors.Join(errs...)
}
