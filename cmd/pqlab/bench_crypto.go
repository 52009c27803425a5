package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"pqlab/bench/crypto"
	"pqlab/pqc"
	"pqlab/report"
)

func newBenchCrypto() *cobra.Command {
	c := &cobra.Command{
		Use: "crypto", Short: "Time the post-quantum primitives, and draw the paper's figure of one or more devices",
		Long: `crypto times each operation of each scheme, sample by sample, in nanoseconds and in cycles of the processor's
counter, as a client does them (verify, encapsulate) and as a server does (make a key and sign or decapsulate).
With --merge it measures nothing: it reads files that --out wrote, one of each device, draws them as one figure
and prints it as a table.`,
		Example: "  pqlab bench crypto --out host.json\n  pqlab bench crypto --merge host.json dpu.json --figure costs",
	}
	asJSON := jsonFlag(c)
	iterations := c.Flags().Int("iterations", 10000, "of each operation")
	schemes := c.Flags().StringSlice("schemes", nil, "only these, separated by commas")
	device := c.Flags().String("device", "", "name of this device in the figure; the default is the host's name, or the CPU's model")
	out := c.Flags().String("out", "", "write the result to this file, for --merge")
	merge := c.Flags().Bool("merge", false, "draw the results in the files that are named")
	figure := c.Flags().String("figure", "", "draw the figure as NAME.svg and NAME.html; with --merge, the default is crypto")
	unit := choice{value: crypto.Units()[0], known: crypto.Units()}
	c.Flags().Var(&unit, "unit", "of the figure: core or counter (cycles), or ns")
	c.Args = func(c *cobra.Command, a []string) error {
		if *merge {
			return args(cobra.MinimumNArgs(1))(c, a)
		}
		return args(cobra.NoArgs)(c, a)
	}
	c.RunE = func(c *cobra.Command, files []string) error {
		if *merge {
			for _, flag := range []string{"iterations", "schemes", "device", "out"} {
				if c.Flags().Changed(flag) {
					return usageError{fmt.Errorf("--%s: --merge measures nothing", flag)}
				}
			}
			if !c.Flags().Changed("figure") {
				*figure = "crypto"
			}
		}
		for _, f := range []struct{ flag, path string }{{"out", *out}, {"figure", svgName(*figure)}, {"figure", htmlName(*figure)}} {
			if err := checkFile(f.flag, f.path); err != nil {
				return err
			}
		}
		show := crypto.Comparison{Unit: crypto.Unit(unit.value), Version: version}
		if *merge {
			var err error
			if show.Results, err = crypto.ReadAll(files...); err != nil {
				var unreadable *fs.PathError
				if errors.As(err, &unreadable) || errors.Is(err, crypto.ErrFile) {
					err = usageError{err}
				}
				return err
			}
			if err := draw(show, *figure); err != nil {
				return err
			}
			if *asJSON {
				return printJSON(c.OutOrStdout(), show.Results)
			}
			return printComparison(c.OutOrStdout(), show, *figure)
		}
		o, err := cryptoOptions(*iterations, *schemes, *device)
		if err != nil {
			return usageError{err}
		}
		shown := newProgress(*asJSON)
		o.Progress = func(what string, done float64, left time.Duration) { shown.show(bar(what, done, left)) }
		r, err := crypto.Measure(c.Context(), o)
		shown.done()
		if err != nil {
			return err
		}
		if *out != "" {
			if err := crypto.Replace(*out, r.WriteJSON); err != nil {
				return fmt.Errorf("--out: %w", err)
			}
		}
		show.Results = []crypto.Result{r}
		if err := draw(show, *figure); err != nil {
			return err
		}
		if *asJSON {
			return r.WriteJSON(c.OutOrStdout())
		}
		return printCrypto(c.OutOrStdout(), show, *out, *figure)
	}
	return c
}

func cryptoOptions(iterations int, schemes []string, device string) (crypto.Options, error) {
	o := crypto.Options{Device: device, Iterations: iterations, Version: version}
	if iterations < 1 || iterations > crypto.MaxIterations {
		return o, fmt.Errorf("--iterations %d: want 1 to %d", iterations, crypto.MaxIterations)
	}
	if device == "" {
		o.Device = ownName()
	}
	if err := crypto.CheckName(o.Device); err != nil {
		return o, fmt.Errorf("--device %q: %w", o.Device, err)
	}
	o.Signatures, o.KEMs = pqc.Signatures(), pqc.KEMs()
	if schemes == nil {
		return o, nil
	}
	var known []string
	for _, s := range o.Signatures {
		known = append(known, s.Name())
	}
	for _, k := range o.KEMs {
		known = append(known, k.Name())
	}
	for _, s := range schemes {
		if !slices.Contains(known, s) {
			return o, fmt.Errorf("--schemes %q: there are %s", s, strings.Join(known, ", "))
		}
	}
	if len(schemes) == 0 {
		return o, fmt.Errorf("--schemes names none; there are %s", strings.Join(known, ", "))
	}
	o.Signatures = slices.DeleteFunc(o.Signatures, func(s pqc.Signature) bool { return !slices.Contains(schemes, s.Name()) })
	o.KEMs = slices.DeleteFunc(o.KEMs, func(k pqc.KEM) bool { return !slices.Contains(schemes, k.Name()) })
	return o, nil
}

// ownName is what this device is called if nobody says it.
func ownName() string {
	if name, err := os.Hostname(); err == nil && name != "localhost" && name != "(none)" && crypto.CheckName(name) == nil {
		return name
	}
	return crypto.CPUModel()
}

const barWidth = 24

// bar is a line of progress: "[######------]  52 %  dilithium3, server, 1m10s left". A negative time is not known yet.
func bar(what string, done float64, left time.Duration) string {
	full := min(barWidth, int(done*barWidth))
	rest := "trying how long it takes"
	if left >= 0 {
		rest = left.Round(time.Second).String() + " left"
	}
	return fmt.Sprintf("[%s%s] %3.0f %%  %s, %s", strings.Repeat("#", full), strings.Repeat("-", barWidth-full), 100*done, what, rest)
}

func svgName(figure string) string  { return withSuffix(figure, ".svg") }
func htmlName(figure string) string { return withSuffix(figure, ".html") }

// withSuffix leaves no name as it is.
func withSuffix(name, suffix string) string {
	if name == "" {
		return ""
	}
	return name + suffix
}

// draw writes the figure twice; an empty name is none to write.
func draw(c crypto.Comparison, figure string) error {
	if figure == "" {
		return nil
	}
	for _, f := range []struct {
		path  string
		write func(io.Writer) error
	}{{svgName(figure), c.WriteSVG}, {htmlName(figure), c.WriteHTML}} {
		if err := crypto.Replace(f.path, f.write); err != nil {
			return fmt.Errorf("--figure: %w", err)
		}
	}
	return nil
}

func printTable(w io.Writer, t report.Table) error {
	head := make([]string, len(t.Head))
	for i, h := range t.Head {
		head[i] = strings.ToUpper(h)
		if i >= t.Text { // devices and units keep their case
			head[i] = h
		}
	}
	return table(w, append([][]string{head}, t.Rows...)...)
}

func printComparison(w io.Writer, c crypto.Comparison, figure string) error {
	fmt.Fprintf(w, "median (p10–p90) in %s\n", c.Unit)
	if err := printTable(w, c.Table()); err != nil {
		return err
	}
	fmt.Fprintln(w, "\nsizes on the wire, in bytes")
	if err := printTable(w, c.Sizes()); err != nil {
		return err
	}
	fmt.Fprintln(w)
	for _, l := range c.Legend() {
		fmt.Fprintln(w, l)
	}
	return printEnd(w, c, figure)
}

func printCrypto(w io.Writer, c crypto.Comparison, out, figure string) error {
	r := c.Results[0]
	if err := printTable(w, r.Table()); err != nil {
		return err
	}
	fmt.Fprintln(w, "\nsizes on the wire, in bytes")
	if err := printTable(w, c.Sizes()); err != nil {
		return err
	}
	fmt.Fprintf(w, "\ndevice %s\n", r.Device)
	var rows [][]string
	for _, f := range r.Facts() {
		rows = append(rows, []string{"  " + f.Name, f.Value})
	}
	if err := table(w, rows...); err != nil {
		return err
	}
	if out != "" {
		fmt.Fprintf(w, "result: %s\n", out)
	}
	return printEnd(w, c, figure)
}

func printEnd(w io.Writer, c crypto.Comparison, figure string) error {
	for _, r := range c.Results {
		for _, warning := range r.Warnings() {
			fmt.Fprintf(w, "warning: %s: %s\n", r.Device, warning)
		}
	}
	if figure != "" {
		fmt.Fprintf(w, "figure: %s, %s\n", svgName(figure), htmlName(figure))
	}
	return nil
}
