package suites

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/ginkgo/v2/reporters"
	"github.com/onsi/ginkgo/v2/types"
	"github.com/onsi/gomega"
	"golang.org/x/sync/errgroup"

	"pqlab/suites/testlab"
)

// command is the first argument of the binary when it runs one suite: Ginkgo runs one tree of specs in a process.
const command = "pqlab-suite"

// Outcome is what became of a claim.
type Outcome struct {
	Claim    string    `json:"claim"`
	Text     string    `json:"text"`
	Specs    int       `json:"specs"` // that were to run
	Passed   int       `json:"passed"`
	Failed   int       `json:"failed"`
	Skipped  []Skip    `json:"skipped"`
	Seconds  float64   `json:"seconds"`
	Failures []Failure `json:"failures"`

	// CouldNotRun is why the claim is neither verified nor refuted where it was to be: its guest did not boot, or lacks what
	// guests are for. It stands before anything in Skipped.
	CouldNotRun string `json:"could_not_run,omitempty"`

	Where testlab.Place `json:"where"` // zero if its process ended without a report

	// ShapedBy is what shaped the links of its labs: "tbf", "netem", "wire", "none" for links with nothing to shape; empty if it
	// has made none.
	ShapedBy []string `json:"shaped_by"`
}

// OK says whether the claim was verified: something ran, and nothing failed.
func (o Outcome) OK() bool {
	return o.Passed > 0 && o.Failed == 0 && len(o.Failures) == 0 && o.CouldNotRun == ""
}

// NotRun says whether this machine has not got what any spec of the claim takes, for the reasons in Skipped, and nobody
// promised that it would.
func (o Outcome) NotRun() bool {
	return o.Specs == 0 && len(o.Skipped) > 0 && len(o.Failures) == 0 && o.CouldNotRun == ""
}

// Skip is a spec that said it cannot run here.
type Skip struct {
	Spec   string `json:"spec"`
	Reason string `json:"reason"`
}

// Failure is a spec that failed.
type Failure struct {
	Spec    string `json:"spec"`
	At      string `json:"at"`
	Message string `json:"message"`
}

// Config of Run.
type Config struct {
	Mode     string // label of the specs to run
	In       Runner // where each claim's process runs; nil: on this machine
	Parallel int    // suites at once
	JUnit    string // file to write; empty: none
	Verbose  io.Writer
	Done     func(Outcome) // told of each claim as it ends; may be nil
}

// Run runs each claim in a process of its own and returns their outcomes in the order given. A claim whose process ends
// without a report has failed; one that there can be no process for could not run, and the others do. When ctx ends, the
// specs under way clean up and Run returns its error.
func Run(ctx context.Context, claims []Claim, c Config) (_ []Outcome, err error) {
	dir, err := os.MkdirTemp("", "pqlab-test-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	outcomes := make([]Outcome, len(claims))
	done := make(chan Outcome)
	told := make(chan struct{})
	go func() {
		defer close(told)
		for o := range done {
			if c.Done != nil {
				c.Done(o)
			}
		}
	}()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(max(c.Parallel, 1))
	for i, claim := range slices.Backward(claims) { // the later ones take longer, so that they begin first
		g.Go(func() error {
			o, err := runOne(ctx, claim, c, dir)
			outcomes[i] = o
			if err == nil {
				done <- o
			}
			return err
		})
	}
	err = g.Wait()
	close(done)
	<-told
	if err == nil && c.JUnit != "" {
		var files []string
		for _, claim := range claims {
			files = append(files, filepath.Join(dir, claim.Name+".xml"))
		}
		_, err = reporters.MergeAndCleanupJUnitReports(files, c.JUnit)
	}
	return outcomes, err
}

func runOne(ctx context.Context, claim Claim, c Config, dir string) (Outcome, error) {
	o := Outcome{Claim: claim.Name, Text: claim.Text, Skipped: []Skip{}, Failures: []Failure{}, ShapedBy: []string{}}
	base := filepath.Join(dir, claim.Name)
	run := c.In
	if run == nil {
		run = native
	}
	var printed strings.Builder
	var output io.Writer = &printed
	if c.Verbose != nil {
		output = c.Verbose
	}
	errRun := run(ctx, dir, []string{command, claim.Name, c.Mode, base}, output)
	if ctx.Err() != nil {
		return o, ctx.Err()
	}
	if errors.Is(errRun, errors.ErrUnsupported) {
		o.CouldNotRun = errRun.Error()
		return o, reporters.GenerateJUnitReport(broken(o, o.CouldNotRun), base+".xml")
	}
	text, err := os.ReadFile(base + ".json")
	if errors.Is(err, fs.ErrNotExist) {
		o.Failures = append(o.Failures, Failure{Spec: claim.Name, Message: fmt.Sprintf("ended without a report (%v):\n%s", errRun, printed.String())})
		return o, reporters.GenerateJUnitReport(broken(o, o.Failures[0].Message), base+".xml")
	} else if err != nil {
		return o, fmt.Errorf("claim %s: %w", claim.Name, err)
	}
	var reports []types.Report
	if err := json.Unmarshal(text, &reports); err != nil {
		return o, fmt.Errorf("claim %s: report: %w", claim.Name, err)
	}
	for _, r := range reports {
		o.add(r)
	}
	if c.Mode == testlab.VM && o.NotRun() {
		o.CouldNotRun = o.Skipped[0].Reason // which all have
	}
	if errRun != nil && len(o.Failures) == 0 {
		o.Failures = append(o.Failures, Failure{Spec: claim.Name, Message: errRun.Error() + "\n" + printed.String()})
	}
	return o, nil
}

// Runner runs this program with arguments, which are those of one claim's process. That leaves files in dir; what it prints
// goes to output. The error is errors.ErrUnsupported if there can be no such process on this machine.
type Runner func(ctx context.Context, dir string, args []string, output io.Writer) error

// native is the Runner of this machine.
func native(ctx context.Context, _ string, args []string, output io.Writer) error {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) } // Ginkgo cleans up after this
	cmd.WaitDelay = time.Minute
	// In a group of its own it does not get a terminal's ^C besides, for after a second one Ginkgo cleans up no more. It dies
	// with this process; Linux asks for the death of this thread.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.Stdout, cmd.Stderr = output, output
	return cmd.Run()
}

// broken is the report that the specs of a claim did not write, which JUnit tells as an error and not as a failure.
func broken(o Outcome, why string) types.Report {
	spec := types.SpecReport{LeafNodeType: types.NodeTypeIt, LeafNodeText: o.Claim, State: types.SpecStateAborted}
	spec.Failure.Message = why
	return types.Report{SuiteDescription: o.Claim, SpecReports: types.SpecReports{spec}}
}

func (o *Outcome) add(r types.Report) {
	o.Where = testlab.PlaceOf(r.SuiteLabels)
	o.Seconds += r.RunTime.Seconds()
	for _, s := range r.SpecReports {
		spec := strings.TrimSpace(s.FullText())
		for _, e := range s.ReportEntries {
			if e.Name == testlab.Shaped {
				o.ShapedBy = append(o.ShapedBy, strings.Split(e.StringRepresentation(), "+")...)
			}
		}
		if s.LeafNodeType == types.NodeTypeIt && !s.State.Is(types.SpecStateSkipped|types.SpecStatePending) {
			o.Specs++
		}
		switch {
		case s.State.Is(types.SpecStateFailureStates):
			o.Failed++
			o.Failures = append(o.Failures, Failure{Spec: spec, At: s.FailureLocation().String(), Message: s.FailureMessage()})
		case s.LeafNodeType != types.NodeTypeIt:
		case s.State.Is(types.SpecStatePassed):
			o.Passed++
		case s.State.Is(types.SpecStateSkipped) && s.Failure.Message != "": // by the spec itself, not by a label
			o.Skipped = append(o.Skipped, Skip{Spec: spec, Reason: s.Failure.Message})
		}
	}
	slices.Sort(o.ShapedBy)
	o.ShapedBy = slices.Compact(o.ShapedBy)
	for _, reason := range r.SpecialSuiteFailureReasons {
		if len(o.Failures) == 0 {
			o.Failures = append(o.Failures, Failure{Spec: o.Claim, Message: reason})
		}
	}
}

// Main returns at once unless Run started this process; then it runs one claim's specs and exits.
func Main() { runClaim(Claims) }

func runClaim(claims func() []Claim) {
	if len(os.Args) != 5 || os.Args[1] != command {
		return
	}
	name, mode, base := os.Args[2], os.Args[3], os.Args[4]
	for _, claim := range claims() {
		if claim.Name == name {
			os.Exit(specs(claim, mode, base))
		}
	}
	fmt.Fprintf(os.Stderr, "no claim %q\n", name)
	os.Exit(1)
}

func specs(claim Claim, mode, base string) int {
	gomega.RegisterFailHandler(ginkgo.Fail)
	env := testlab.NewEnv()
	var err error
	if env.Binary, err = os.Executable(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	place, err := env.Place()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if mode == testlab.VM {
		env.Insist(place)
	}
	claim.Specs(env)
	config, reporter := ginkgo.GinkgoConfiguration()
	config.LabelFilter = mode
	reporter.JSONReport, reporter.JUnitReport, reporter.NoColor = base+".json", base+".xml", true
	if !ginkgo.RunSpecs(failer{}, claim.Name, place.Labels(), config, reporter) {
		return 1
	}
	return 0
}

// failer stands in for a *testing.T: RunSpecs returns what it would be told.
type failer struct{}

func (failer) Fail() {}
