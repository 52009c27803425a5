package suites

import (
	"bytes"
	"cmp"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	g "github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"

	"pqlab/internal/vm/guest"
	"pqlab/suites/testlab"
)

// notes is the environment variable that names the directory in which the specs of these tests leave notes.
const notes = "PQLAB_SUITES_TEST"

func note(name, text string) {
	os.WriteFile(filepath.Join(os.Getenv(notes), name), []byte(text), 0o644)
}

// runner makes this binary a runner of the claim that hangs.
const runner = "suites-test-runner"

func TestMain(m *testing.M) {
	guest.Main()
	if len(os.Args) == 2 && os.Args[1] == runner {
		_, err := Run(context.Background(), []Claim{hangs}, Config{Mode: "emu"})
		fmt.Fprintln(os.Stderr, "not killed:", err)
		os.Exit(1)
	}
	runClaim(func() []Claim { return []Claim{passes, fails, skips, panics, exits, breaks, hangs, cleansUp, nothing} })
	os.Exit(m.Run())
}

func here(specs func()) func(testlab.Env) {
	return func(testlab.Env) { g.Describe("claim", g.Label("emu", "vm"), specs) }
}

// both adds a spec of another mode, which is not to run.
func both(specs func()) func(testlab.Env) {
	return func(e testlab.Env) {
		here(specs)(e)
		g.Describe("elsewhere", g.Label("hw"), func() { g.It("is of another mode", func() { panic("it ran") }) })
	}
}

var (
	passes = Claim{"passes", "two specs hold", both(func() {
		g.It("holds", func() {
			fmt.Fprintln(os.Stdout, "said by a spec")
			g.AddReportEntry(testlab.Shaped, "wire", g.ReportEntryVisibilityNever)
		})
		g.It("holds too", func() { g.AddReportEntry(testlab.Shaped, "none+wire", g.ReportEntryVisibilityNever) })
		g.It("cannot here", func() { g.Skip("this machine has no such thing") })
	})}
	fails = Claim{"fails", "one of two holds", here(func() {
		g.It("holds", func() {})
		g.It("does not", func() { gomega.Expect(1).To(gomega.Equal(2)) })
	})}
	skips = Claim{"skips", "none could run", here(func() {
		g.It("cannot", func() { g.Skip("this machine has no such thing") })
	})}
	panics = Claim{"panics", "a spec panics", here(func() {
		g.It("holds", func() {})
		g.It("panics", func() { panic("spec") })
	})}
	exits = Claim{"exits", "the process ends", here(func() {
		g.It("exits", func() { fmt.Fprintln(os.Stderr, "last words"); os.Exit(7) })
	})}
	breaks   = Claim{"breaks", "the specs cannot be listed", func(testlab.Env) { panic("tree") }}
	cleansUp = Claim{"cleans-up", "it fails in what comes after the specs", here(func() {
		g.AfterEach(func() { gomega.Expect("left").To(gomega.BeEmpty()) })
		g.It("holds", func() {})
	})}
	nothing = Claim{"nothing", "no spec is of the mode", func(testlab.Env) {
		g.Describe("claim", g.Label("hw"), func() { g.It("is elsewhere", func() {}) })
	}}
	hangs = Claim{"hangs", "never ends", here(func() {
		g.It("waits", func(ctx g.SpecContext) {
			g.DeferCleanup(func() { note("cleaned", "") })
			note("group", strconv.Itoa(syscall.Getpgrp())+" "+strconv.Itoa(os.Getpid()))
			note("hangs", "")
			<-ctx.Done()
		})
	})}
)

// run runs claims, on this machine unless c says otherwise, with a directory for temporary files of its own, which has to be empty afterwards.
func run(t *testing.T, ctx context.Context, c Config, claims ...Claim) ([]Outcome, error) {
	t.Helper()
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	c.Mode = cmp.Or(c.Mode, testlab.Emu)
	outcomes, err := Run(ctx, claims, c)
	if left, errLeft := os.ReadDir(temp); errLeft != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, errLeft)
	}
	return outcomes, err
}

func TestRun(t *testing.T) {
	junit := filepath.Join(t.TempDir(), "junit.xml")
	claims := []Claim{passes, fails, skips, panics, exits, breaks, cleansUp, nothing}
	var mu sync.Mutex
	var told []string
	got, err := run(t, t.Context(), Config{Parallel: 3, JUnit: junit, Done: func(o Outcome) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, o.Claim)
	}}, claims...)
	if err != nil {
		t.Fatal(err)
	}
	want := []struct {
		specs, passed, failed, skipped, failures int
		ok, notRun                               bool
		words                                    []string // of the first failure
	}{
		{2, 2, 0, 1, 0, true, false, nil},
		{2, 1, 1, 0, 1, false, false, []string{"does not", "run_test.go", "to equal"}},
		{0, 0, 0, 1, 0, false, true, nil},
		{2, 1, 1, 0, 1, false, false, []string{"panics", "run_test.go"}},
		{0, 0, 0, 0, 1, false, false, []string{"exits", "last words", "exit status 7"}},
		{0, 0, 0, 0, 1, false, false, []string{"breaks", "tree"}},
		{1, 0, 1, 0, 1, false, false, []string{"holds", "left"}},
		{0, 0, 0, 0, 0, false, false, nil},
	}
	for i, o := range got {
		w := want[i]
		if o.Claim != claims[i].Name || o.Text != claims[i].Text || o.Specs != w.specs || o.Passed != w.passed || o.Failed != w.failed ||
			len(o.Skipped) != w.skipped || len(o.Failures) != w.failures || o.OK() != w.ok || o.NotRun() != w.notRun {
			t.Errorf("%s: %+v, want %+v", claims[i].Name, o, w)
			continue
		}
		for _, word := range w.words {
			if f := o.Failures[0]; !strings.Contains(f.Spec+f.At+f.Message, word) {
				t.Errorf("%s: the failure %+v does not tell %q", o.Claim, f, word)
			}
		}
		for _, s := range o.Skipped {
			if s.Reason == "" || s.Spec == "" {
				t.Errorf("%s: skipped %+v", o.Claim, s)
			}
		}
	}
	slices.Sort(told)
	if len(slices.Compact(told)) != len(claims) {
		t.Errorf("told of %v", told)
	}

	text, err := os.ReadFile(junit)
	if err != nil {
		t.Fatal(err)
	}
	var report struct {
		Suites []struct {
			Name  string `xml:"name,attr"`
			Cases []struct {
				Failure *struct{} `xml:"failure"`
				Error   *struct{} `xml:"error"`
				Skipped *struct{} `xml:"skipped"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal(text, &report); err != nil {
		t.Fatal(err)
	}
	bad := map[string]int{}
	for _, s := range report.Suites {
		bad[s.Name] += 0
		for _, c := range s.Cases {
			if c.Failure != nil || c.Error != nil {
				bad[s.Name]++
			}
		}
	}
	for i, claim := range claims {
		if n, ok := bad[claim.Name]; !ok || n != want[i].failures {
			t.Errorf("JUnit has %d failures of %s (there: %v), want %d", n, claim.Name, ok, want[i].failures)
		}
	}
}

// What the specs print is shown as they print it, where that is asked for.
func TestVerbose(t *testing.T) {
	var shown bytes.Buffer
	if _, err := run(t, t.Context(), Config{Parallel: 1, Verbose: &shown}, passes); err != nil || !strings.Contains(shown.String(), "said by a spec") {
		t.Errorf("%v: %s", err, &shown)
	}
}

// When the context ends, specs under way are interrupted and clean up, and nothing is written. They are in a process
// group of their own, so that a terminal's ^C reaches them only by way of the context.
func TestCancelled(t *testing.T) {
	dir := t.TempDir()
	t.Setenv(notes, dir)
	junit := filepath.Join(dir, "junit.xml")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	deadline := time.AfterFunc(2*time.Minute, cancel)
	go func() {
		for ctx.Err() == nil {
			if _, err := os.Stat(filepath.Join(dir, "hangs")); err == nil {
				cancel()
			}
			time.Sleep(time.Millisecond)
		}
	}()
	_, err := run(t, ctx, Config{Parallel: 2, JUnit: junit, Done: func(o Outcome) {
		if o.Claim == hangs.Name {
			t.Error("told of a claim that was interrupted")
		}
	}}, hangs, passes)
	if !errors.Is(err, context.Canceled) || !deadline.Stop() {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "cleaned")); err != nil {
		t.Errorf("the spec did not clean up: %v", err)
	}
	if _, err := os.Stat(junit); err == nil {
		t.Error("a report of specs that did not end")
	}
	text, err := os.ReadFile(filepath.Join(dir, "group"))
	if group, pid, _ := strings.Cut(string(text), " "); err != nil || group != pid {
		t.Errorf("process %s is in the group %s: %v", pid, group, err)
	}
}

// Specs do not outlive a runner that was killed.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command("/proc/self/exe", runner)
	cmd.Env = append(os.Environ(), notes+"="+dir, "TMPDIR="+t.TempDir())
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the spec runs", func() bool { _, err := os.Stat(filepath.Join(dir, "hangs")); return err == nil })
	text, err := os.ReadFile(filepath.Join(dir, "group"))
	if err != nil {
		t.Fatal(err)
	}
	_, pid, _ := strings.Cut(string(text), " ")
	cmd.Process.Kill()
	cmd.Wait()
	eventually(t, "the spec's process ends", func() bool {
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		_, rest, _ := strings.Cut(string(stat), ") ")
		return err != nil || strings.HasPrefix(rest, "Z")
	})
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

func TestClaims(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, c := range Claims() {
		if c.Name == "" || c.Text == "" || c.Specs == nil || seen[c.Name] {
			t.Errorf("claim %+v", c)
		}
		seen[c.Name] = true
	}
	folders, err := filepath.Glob("*/*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range folders {
		if name := filepath.Dir(f); name != "testlab" && !seen[name] {
			t.Errorf("the specs of %s are no claim", name)
		}
	}
	if len(seen) < 5 {
		t.Errorf("%d claims", len(seen))
	}
}

// A claim that is not known is an error of the process that was to run it.
func TestUnknownClaim(t *testing.T) {
	got, err := run(t, t.Context(), Config{Parallel: 1}, Claim{Name: "unknown"})
	if err != nil || len(got) != 1 || got[0].OK() || !strings.Contains(got[0].Failures[0].Message, "unknown") {
		t.Errorf("%+v, %v", got, err)
	}
}
