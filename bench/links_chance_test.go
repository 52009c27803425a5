package bench

import (
	"errors"
	"math"
	"slices"
	"testing"
	"time"

	"pqlab/internal/netns"
	"pqlab/lab"
	"pqlab/topology"
)

// Of each quartile and percentile the worse direction counts, with its own interval.
func TestJitterError(t *testing.T) {
	t.Parallel()
	const msec = time.Millisecond
	direction := func(seen ...time.Duration) lab.Measured {
		d := &lab.MeasuredDelay{Packets: 77, Wanted: [3]time.Duration{4 * msec, 5 * msec, 6 * msec}, Seen: [3]time.Duration(seen)}
		for q, s := range d.Seen {
			d.Low[q], d.High[q] = s-msec, s+2*msec
		}
		last := d.Seen[2]
		d.Tail = []lab.MeasuredQuantile{
			{Share: 0.9, Wanted: 7 * msec, Seen: last, Low: last - msec, High: last + msec}, {Share: 0.99, Wanted: 4 * msec, Seen: last, Low: last, High: 2 * last},
		}
		return lab.Measured{
			Shaper: "netem", Delay: d, Unmeasured: []string{"why"},
			Wanted: topology.Shape{Delay: 5 * msec, Jitter: msec, Distribution: "uniform"},
		}
	}
	got := jitterError([]lab.Measured{direction(4*msec, 8*msec, 5*msec), direction(3*msec, 6*msec, 6*msec)})
	want := [3]QuartileError{{-1000, -2000, 1000}, {3000, 2000, 5000}, {-1000, -2000, 1000}}
	tail := []TailError{{0.9, QuartileError{-2000, -3000, -1000}}, {0.99, QuartileError{2000, 2000, 8000}}}
	if got.Errors != want || !slices.Equal(got.Tail, tail) || got.Wanted != [3]float64{4, 5, 6} || got.Packets != 154 || got.Shaper != "netem" || got.Distribution != "uniform" ||
		got.Delay != 5 || got.Jitter != 1 || len(got.Unmeasured) != 2 {
		t.Errorf("%+v", got)
	}
	if got := jitterError([]lab.Measured{{}, {}}); got.Packets != 0 || got.Errors != [3]QuartileError{} {
		t.Errorf("nothing was measured: %+v", got)
	}
}

// The losses of both directions are one sample, whose interval has what both have and is narrower than theirs.
func TestLossSeen(t *testing.T) {
	t.Parallel()
	direction := func(n, lost int) lab.Measured {
		return lab.Measured{Loss: &lab.MeasuredShare{Packets: n, Count: lost, Wanted: 0.01}, Missed: 3, Shaper: "wire"}
	}
	got := lossSeen([]lab.Measured{direction(600, 4), direction(400, 6)}, 0.01)
	if got.Packets != 1000 || got.Seen != 0.01 || got.Wanted != 0.01 || got.Missed != 6 {
		t.Errorf("%+v", got)
	}
	// Clopper and Pearson of 10 in 1000 with 99 %.
	if math.Abs(got.Low-0.00373) > 2e-5 || math.Abs(got.High-0.02128) > 2e-5 {
		t.Errorf("%.5f to %.5f", got.Low, got.High)
	}
	if got := lossSeen([]lab.Measured{{}, {}}, 0.01); got.Packets != 0 || got.Low != 0 || got.High != 1 || got.Wanted != 0.01 {
		t.Errorf("nothing was measured: %+v", got)
	}
}

// A delay that varies and losses are seen as they were asked for, with each shaper that has them.
func TestMeasureChance(t *testing.T) {
	made, err := netns.New(1)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	made[0].Close()
	spread := topology.Shape{Delay: 20 * time.Millisecond, Jitter: 4 * time.Millisecond, Distribution: "uniform", Unordered: true}
	grid := Grid{Jitters: []topology.Shape{spread}, Losses: []float64{0.4}}
	out, err := MeasureLinks(t.Context(), LinkOptions{Grid: grid, Packets: 500}, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	var random []string // shapers that decide by chance
	for _, s := range out.Shapers {
		if s != "tbf" {
			random = append(random, s)
		}
	}
	if len(random) == 0 {
		t.Skipf("no shaper of this machine has jitter: %v", out.Missing)
	}
	if len(out.Jitters) != 2*len(random) || len(out.Losses) != 2*len(random) {
		t.Fatalf("%v: %+v", random, out)
	}
	for i, j := range out.Jitters {
		// Quartiles of a uniform distribution are √3/2 standard deviations from its middle, however late the machine is.
		if j.Loaded != (i >= len(random)) || !slices.Contains(random, j.Shaper) || j.Packets < 20 || math.Abs(j.Wanted[0]-16.5) > 0.3 || math.Abs(j.Wanted[2]-23.5) > 0.3 {
			t.Errorf("%+v", j)
		}
		if len(j.Tail) != 2 || j.Tail[1].Low > j.Tail[1].Error || j.Tail[1].Error > j.Tail[1].High {
			t.Errorf("%+v", j)
		}
		if e := j.Errors; e[0].Low > e[0].Error || e[0].Error > e[0].High || e[0].High < 0 || e[0].Low > 100e3 {
			t.Errorf("%+v", j)
		}
	}
	for i, l := range out.Losses {
		// Chance alone would bring it here once in a billion times; what the wire missed is lost as well.
		if l.Loaded != (i >= len(random)) || !slices.Contains(random, l.Shaper) || l.Packets != 1000 || l.Seen < 0.3 || l.Missed == 0 && l.Seen > 0.5 {
			t.Errorf("%+v", l)
		}
	}
}

// What is asked for has at least two distributions at two delays, and losses over three orders of magnitude; all of it is what a
// link can be asked for.
func TestChanceGrid(t *testing.T) {
	t.Parallel()
	for _, quick := range []bool{false, true} {
		g := LinkGrid(quick, false)
		for _, s := range g.Jitters {
			top, err := topology.New("x").Host("a").Host("b").Ethernet("a", "b").Topology()
			if err != nil {
				t.Fatal(err)
			}
			if top.Links[0].Shape = s; s.Jitter == 0 {
				t.Errorf("%v does not vary", s)
			} else if _, err := top.Plan(); err != nil {
				t.Error(err)
			}
		}
		if len(g.Jitters) == 0 || len(g.Losses) == 0 {
			t.Errorf("%+v", g)
		}
	}
	g := LinkGrid(false, false)
	delays := map[string][]time.Duration{}
	for _, s := range g.Jitters {
		delays[s.Distribution] = append(delays[s.Distribution], s.Delay)
	}
	if len(delays) < 2 || len(delays["uniform"]) < 2 || !slices.Equal(delays["uniform"], delays["normal"]) {
		t.Errorf("%v", delays)
	}
	if !slices.Equal(g.Losses, []float64{0.001, 0.01, 0.1}) {
		t.Errorf("%v", g.Losses)
	}
}
