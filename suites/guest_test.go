package suites

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"pqlab/internal/vm"
	"pqlab/internal/vm/guest"
	"pqlab/internal/vm/kernel"
	"pqlab/probe"
	"pqlab/suites/testlab"
)

// Results say where the specs ran.
func TestWhere(t *testing.T) {
	got, err := run(t, t.Context(), Config{Parallel: 1}, passes, fails)
	if err != nil {
		t.Fatal(err)
	}
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		t.Fatal(err)
	}
	if w := got[0].Where; w.Kernel != strings.TrimSpace(string(release)) || w.Dataplane == "" || w.Shaper == "" || w.Guest != os.Getenv(guest.Accel) {
		t.Errorf("%+v", w)
	}
	// What shaped the links of labs is told by specs that made some.
	if a, b := got[0].ShapedBy, got[1].ShapedBy; !slices.Equal(a, []string{"none", "wire"}) || b == nil || len(b) > 0 {
		t.Errorf("shaped by %q, and %q", a, b)
	}
}

// A claim that there can be no process for could not run, and the others do; any other error is a failure of the claim.
func TestRunner(t *testing.T) {
	var n atomic.Int32
	runner := func(err error) Runner {
		return func(_ context.Context, _ string, args []string, output io.Writer) error {
			n.Add(1)
			fmt.Fprintln(output, "last words of", args[1])
			return err
		}
	}
	got, err := run(t, t.Context(), Config{Parallel: 1, In: runner(errors.New("the guest died"))}, passes, fails)
	if err != nil || n.Load() != 2 {
		t.Fatalf("%v after %d claims", err, n.Load())
	}
	for _, o := range got {
		if o.OK() || len(o.Failures) != 1 || !strings.Contains(o.Failures[0].Message, "the guest died") || !strings.Contains(o.Failures[0].Message, "last words of "+o.Claim) {
			t.Errorf("%+v", o)
		}
	}
	junit := filepath.Join(t.TempDir(), "junit.xml")
	got, err = run(t, t.Context(), Config{Parallel: 2, JUnit: junit, In: func(ctx context.Context, dir string, args []string, output io.Writer) error {
		if args[1] == fails.Name {
			return &vm.Error{Kind: vm.ErrBoot, Err: errors.New("nothing was heard of it")}
		}
		return native(ctx, dir, args, output)
	}}, passes, fails)
	if err != nil {
		t.Fatal(err)
	}
	if !got[0].OK() {
		t.Errorf("%+v", got[0])
	}
	if o := got[1]; o.OK() || o.NotRun() || len(o.Failures) != 0 || !strings.Contains(o.CouldNotRun, "nothing was heard of it") {
		t.Errorf("%+v", o)
	}
	if text, err := os.ReadFile(junit); err != nil || !strings.Contains(string(text), "nothing was heard of it") {
		t.Errorf("JUnit: %v\n%s", err, text)
	}
}

// Who asks for guests is told where what guests are for is not there. On this machine such specs are but skipped.
func TestInsists(t *testing.T) {
	missing := errors.Join(probe.ESP(), probe.Netem())
	for mode, insists := range map[string]bool{testlab.Emu: false, testlab.VM: true} {
		got, err := run(t, t.Context(), Config{Mode: mode, Parallel: 1}, passes, skips)
		if err != nil {
			t.Fatal(err)
		}
		if o := got[0]; insists && missing != nil {
			if o.OK() || o.NotRun() || o.Passed > 0 || !strings.HasPrefix(o.CouldNotRun, "the guest's kernel: ") {
				t.Errorf("%s without %v: %+v", mode, missing, o)
			}
		} else if !o.OK() {
			t.Errorf("%s: %+v", mode, o)
		}
		if o := got[1]; o.OK() || o.NotRun() == insists || (o.CouldNotRun != "") != insists {
			t.Errorf("%s: %+v", mode, o)
		}
	}
}

// In guests claims are verified as here, by this very program, and results say that it was there.
func TestGuest(t *testing.T) {
	if testing.Short() {
		t.Skip("a guest takes some seconds")
	}
	if os.Getenv(guest.Accel) != "" {
		t.Skip("this is a guest already")
	}
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		t.Skipf("no guest: %v", err)
	}
	cache, err := kernel.UserCache()
	if err != nil {
		t.Skipf("no guest: %v", err)
	}
	k, err := cache.Find("")
	if err != nil {
		t.Skipf("no guest: %v", err)
	}
	junit := filepath.Join(t.TempDir(), "junit.xml")
	guests := vm.Config{Kernel: k, Env: append(os.Environ(), "GORACE=atexit_sleep_ms=0"), Memory: 512 << 20, Cache: filepath.Dir(cache.Dir)}
	got, err := run(t, t.Context(), Config{Mode: testlab.VM, Parallel: 2, JUnit: junit, In: Guest(guests)}, passes, fails, exits)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []struct {
		passed, skipped, failures int
		word                      string // of the failure
	}{{2, 1, 0, ""}, {1, 0, 1, "to equal"}, {0, 0, 1, "last words"}} {
		o := got[i]
		if o.Passed != want.passed || len(o.Skipped) != want.skipped || len(o.Failures) != want.failures || o.OK() != (want.failures == 0) {
			t.Errorf("%s: %+v, want %+v", o.Claim, o, want)
			continue
		}
		if want.word != "" && !strings.Contains(o.Failures[0].Message, want.word) {
			t.Errorf("%s: %q is not in %s", o.Claim, want.word, o.Failures[0].Message)
		}
		if w := o.Where; o.Claim != exits.Name && (w.Kernel != k.Release || w.Guest != vm.KVM && w.Guest != vm.TCG || (w.Note != "") != (w.Guest == vm.TCG)) {
			t.Errorf("%s: %+v", o.Claim, w)
		}
	}
	text, err := os.ReadFile(junit)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), `name="SuiteLabels" value="[kernel: `+k.Release+","); n != 2 {
		t.Errorf("%d suites of the JUnit report say where they ran, want 2:\n%s", n, text)
	}
}
