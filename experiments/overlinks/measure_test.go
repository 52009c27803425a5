package overlinks

import (
	"context"
	"errors"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"pqlab/agent"
	"pqlab/internal/hygiene"
	"pqlab/internal/journal"
	"pqlab/internal/netns"
	"pqlab/internal/rootless"
	"pqlab/lab"
	"pqlab/nodes"
	"pqlab/pqc"
	"pqlab/topology"
)

var owner hygiene.Owner // answers for what the labs of these tests leave

func TestMain(m *testing.M) {
	nodes.InitMain()
	agent.Main()
	journal.SweeperMain()
	_ = rootless.Enter()                                          // where it fails the tests that need it skip, and say why
	os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE")) // else an agent with the race detector takes a second to end
	owner = hygiene.Self()
	os.Exit(m.Run())
}

func needNamespaces(t testing.TB) {
	t.Helper()
	made, err := netns.New(1)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	made[0].Close()
}

func suites(t *testing.T, names ...string) (all []pqc.Suite) {
	t.Helper()
	for _, n := range names {
		s, err := pqc.ParseSuite(n)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	return all
}

// measure skips where nothing can delay.
func measure(t *testing.T, o Options) Result {
	t.Helper()
	needNamespaces(t)
	owner.Check(t)
	o.Limit = 30 * time.Second
	r, err := Measure(t.Context(), o)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Real exchanges over real links take their round trips, and each suite has its own size.
func TestMeasure(t *testing.T) {
	told := 0
	r := measure(t, Options{
		Suites: suites(t, f512, d2), Rates: []topology.Rate{10 * topology.Mbit, topology.Gbit}, Delays: []time.Duration{time.Millisecond, 30 * time.Millisecond},
		Losses: []float64{0}, Devices: []Devices{{}}, Repeats: 3, Seed: 7, Progress: func(float64, string) { told++ },
	})
	if len(r.Cells) != 8 || told != 4 || r.Shaper == "" || r.Shaper == "none" || r.Dataplane == "" || r.Seconds <= 0 {
		t.Fatalf("%d cells, told %d times, %+v", len(r.Cells), told, r.About)
	}
	for _, c := range r.Cells {
		if len(c.Times) != 3 || c.Never != 0 || len(c.Why) > 0 {
			t.Errorf("%v, %s: %v, %d never, %q", c.Link, c.Suite, c.Times, c.Never, c.Why)
		}
		// At least four round trips: TCP, TLS, offer, and the end. Dilithium2 sends 2 kB more than Falcon-512.
		if least := 8 * c.Link.DelayMs; float64(slices.Min(c.Times)) < least {
			t.Errorf("%v, %s: %v, which is less than four round trips", c.Link, c.Suite, c.Times)
		}
		if low, high := 4000, 6000; c.Suite == f512 && (c.Bytes < low || c.Bytes > high) || c.Suite == d2 && (c.Bytes < low+2000 || c.Bytes > high+2500) {
			t.Errorf("%s: %d bytes", c.Suite, c.Bytes)
		}
	}
	if len(r.Comparisons) != 4 || len(r.Borders) != 2 || len(r.Advice) != 3 {
		t.Errorf("%d comparisons, %d borders, %d of advice", len(r.Comparisons), len(r.Borders), len(r.Advice))
	}
	// Three exchanges are too few to see anything.
	for _, c := range r.Comparisons {
		if c.Faster != "" || !math.IsInf(float64(c.Low), -1) {
			t.Errorf("%+v", c)
		}
	}
}

// Over a link that loses all, no tunnel comes about, and that is a result.
func TestNoTunnel(t *testing.T) {
	needNamespaces(t)
	owner.Check(t)
	r, err := Measure(t.Context(), Options{
		Suites: suites(t, f512), Rates: []topology.Rate{topology.Gbit}, Delays: []time.Duration{time.Millisecond}, Losses: []float64{1},
		Devices: []Devices{{}}, Repeats: 1, Lossy: 2, Limit: 200 * time.Millisecond,
	})
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if c := r.Cells[0]; c.Never != 2 || !math.IsInf(float64(c.Median), 1) || c.Bytes != 0 {
		t.Errorf("%+v", c)
	}
}

// A device that has a seventh of a core takes longer to make Falcon's keys.
func TestDevices(t *testing.T) {
	r := measure(t, Options{
		Suites: suites(t, f1024), Rates: []topology.Rate{topology.Gbit}, Delays: []time.Duration{time.Millisecond}, Losses: []float64{0},
		Devices: []Devices{{}, {"jetson-nano", "jetson-nano"}}, Repeats: 9,
	})
	if len(r.Cells) == 1 && slices.ContainsFunc(r.Warnings, func(w string) bool { return strings.Contains(w, "jetson-nano") }) {
		t.Skip(r.Warnings)
	}
	if len(r.Cells) != 2 || slices.Min(r.Cells[1].Times) < 1.2*slices.Min(r.Cells[0].Times) {
		t.Errorf("%+v", r.Cells)
	}
}

// What no shaper can do is refused before anything is made, and so is what no link can be.
func TestRefused(t *testing.T) {
	t.Parallel()
	o := Options{Suites: suites(t, f512), Rates: []topology.Rate{topology.Gbit}, Delays: []time.Duration{time.Millisecond}, Losses: []float64{0}, Devices: []Devices{{}}, Repeats: 1, Limit: time.Second}
	needNamespaces(t)
	o.Lab = lab.Options{Shaper: "tbf"}
	if _, err := Measure(t.Context(), o); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("tbf: %v", err)
	}
	o.Lab.Shaper, o.Losses = "", []float64{1.5}
	var mistakes topology.Errors
	if _, err := Measure(t.Context(), o); !errors.As(err, &mistakes) {
		t.Errorf("loss of 150%%: %v", err)
	}
}

func TestInterrupted(t *testing.T) {
	needNamespaces(t)
	owner.Check(t)
	ctx, cancel := context.WithCancel(t.Context())
	o := Options{
		Suites: suites(t, f512), Rates: []topology.Rate{topology.Gbit}, Delays: []time.Duration{time.Millisecond, 10 * time.Millisecond}, Losses: []float64{0},
		Devices: []Devices{{}}, Repeats: 1000, Limit: time.Second, Progress: func(float64, string) {},
	}
	time.AfterFunc(300*time.Millisecond, cancel)
	if _, err := Measure(ctx, o); !errors.Is(err, context.Canceled) {
		if errors.Is(err, errors.ErrUnsupported) {
			t.Skip(err)
		}
		t.Errorf("%v", err)
	}
}
