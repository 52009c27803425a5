package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/agext/levenshtein"
	"github.com/spf13/cobra"

	"pqlab/internal/rootless"
	"pqlab/internal/vm"
	"pqlab/internal/vm/guest"
	"pqlab/internal/vm/kernel"
	"pqlab/suites"
	"pqlab/suites/testlab"
)

func newTest() *cobra.Command {
	c := &cobra.Command{Use: "test [CLAIM…]", Short: "Verify the claims: all of them, or those named"}
	asJSON := jsonFlag(c)
	mode := c.Flags().String("mode", testlab.Emu, "where: emu is this machine, vm a guest kernel with IPsec and netem, one for each claim (hw is not in this version)")
	parallel := c.Flags().Int("parallel", runtime.NumCPU(), "claims at once, and guests")
	image := kernelFlag(c)
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
		case *mode == "hw":
			return unsupported(errors.New("--mode hw: this version runs no suites on hardware; emu and vm work"))
		case *mode != testlab.Emu && *mode != testlab.VM:
			return usageError{fmt.Errorf("--mode %q: want emu or vm", *mode)}
		case *image != "" && *mode != testlab.VM:
			return usageError{errors.New("--kernel is for --mode vm")}
		case *parallel < 1:
			return usageError{fmt.Errorf("--parallel %d: want at least 1", *parallel)}
		}
		if err := checkFile("junit", *junit); err != nil {
			return err
		}
		config := suites.Config{Mode: *mode, Parallel: *parallel, JUnit: *junit}
		if *mode == testlab.VM {
			guests, err := suiteGuests(*image)
			if err != nil {
				return err
			}
			config.In = suites.Guest(guests)
		} else if err := rootless.Enter(); err != nil {
			return err
		}
		if *verbose {
			config.Verbose = c.ErrOrStderr()
		}
		if !*asJSON {
			var once sync.Once
			config.Done = func(o suites.Outcome) {
				if o.Where != (testlab.Place{}) {
					once.Do(func() { fmt.Fprintln(c.OutOrStdout(), where(o.Where)) })
				}
				tell(c.OutOrStdout(), o)
			}
		}
		outcomes, err := suites.Run(c.Context(), claims, config)
		if err != nil {
			return err
		}
		if *asJSON {
			if err := printJSON(c.OutOrStdout(), outcomes); err != nil {
				return err
			}
		} else {
			fmt.Fprintln(c.OutOrStdout(), tallied(outcomes))
		}
		return tallied(outcomes).err()
	}
	return c
}

// tally counts claims by what became of them.
type tally struct{ all, verified, notRun, couldNotRun int }

func tallied(outcomes []suites.Outcome) (t tally) {
	for _, o := range outcomes {
		t.all++
		switch {
		case o.OK():
			t.verified++
		case o.NotRun():
			t.notRun++
		case len(o.Failures) == 0 && o.CouldNotRun != "":
			t.couldNotRun++
		}
	}
	return t
}

func (t tally) String() string {
	s := fmt.Sprintf("%d of %d claims verified", t.verified, t.all)
	if t.notRun > 0 {
		s += fmt.Sprintf(", %d not run here", t.notRun)
	}
	if t.couldNotRun > 0 {
		s += fmt.Sprintf(", %d could not run", t.couldNotRun)
	}
	return s
}

// err is the exit status: a failure weighs more than what could not run, and that more than what was verified.
func (t tally) err() error {
	switch {
	case t.verified+t.notRun+t.couldNotRun < t.all:
		return exitError(exitFailed)
	case t.couldNotRun > 0, t.verified == 0:
		return exitError(exitUnsupported)
	}
	return nil
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

// guestTimeout is for the specs of a claim in a guest, its boot included. The longest take some two minutes.
const guestTimeout = 40 * time.Minute

// suiteGuests is how the guests of claims are made.
func suiteGuests(image string) (vm.Config, error) {
	if guest.Inside() {
		return vm.Config{}, unsupported(errors.New("--mode vm: this is a guest; --mode emu runs the suites in it"))
	}
	cache, err := kernel.UserCache()
	if err != nil {
		return vm.Config{}, err
	}
	k, err := cache.Find(image)
	if err != nil {
		return vm.Config{}, err
	}
	if _, err := vm.QEMU(); err != nil {
		return vm.Config{}, err
	}
	return vm.Config{
		Kernel: k, Env: guestEnviron(os.Environ()), Memory: 512 << 20, Timeout: guestTimeout, Cache: filepath.Dir(cache.Dir),
	}, nil
}

// where says where the specs ran.
func where(p testlab.Place) string {
	s := fmt.Sprintf("kernel %s, dataplane %s, shaper %s", p.Kernel, p.Dataplane, p.Shaper)
	if p.Guest != "" {
		s += ", in guests under " + strings.ToUpper(p.Guest)
	}
	if p.Note != "" {
		s += "; " + p.Note
	}
	return s
}

func tell(w io.Writer, o suites.Outcome) {
	verdict := "verified"
	if o.NotRun() {
		verdict = "not run"
	} else if o.CouldNotRun != "" {
		verdict = "could not run"
	} else if !o.OK() {
		verdict = "FAILED"
	}
	shaped := ""
	if len(o.ShapedBy) > 0 {
		shaped = ", links by " + strings.Join(o.ShapedBy, ", ")
	}
	fmt.Fprintf(w, "%-10s %-8s %3d of %3d specs, %.1f s%s\n", o.Claim, verdict, o.Passed, o.Specs, o.Seconds, shaped)
	if o.CouldNotRun != "" {
		fmt.Fprintf(w, "  %s\n", strings.ReplaceAll(o.CouldNotRun, "\n", "\n  "))
		return
	}
	var reasons []string
	skipped := map[string][]string{} // specs by reason
	for _, s := range o.Skipped {
		if skipped[s.Reason] == nil {
			reasons = append(reasons, s.Reason)
		}
		skipped[s.Reason] = append(skipped[s.Reason], s.Spec)
	}
	for _, reason := range reasons {
		what := skipped[reason][0]
		if n := len(skipped[reason]); n > 1 {
			what = fmt.Sprintf("%d specs", n)
		}
		fmt.Fprintf(w, "  skipped: %s: %s\n", what, reason)
	}
	for _, f := range o.Failures {
		fmt.Fprintf(w, "  failed: %s\n    at %s\n    %s\n", f.Spec, f.At, strings.ReplaceAll(f.Message, "\n", "\n    "))
	}
}
