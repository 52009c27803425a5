package bench

import (
	"errors"
	"math"
	"runtime"
	"slices"
	"testing"
	"time"

	"pqlab/bench/crypto"
	"pqlab/internal/netns"
	"pqlab/lab"
	"pqlab/links/wire"
	"pqlab/topology"
)

// The worse direction counts. A wire sends what comes at its rate, an idle bucket lets it pass at once.
func TestLinkError(t *testing.T) {
	t.Parallel()
	direction := func(shaper string, p50, p99 time.Duration, rate float64) lab.Measured {
		return lab.Measured{
			Shaper: shaper, Wanted: topology.Shape{Rate: 1000, Delay: 5 * time.Millisecond},
			Delay: &lab.MeasuredDelay{
				Wanted: [3]time.Duration{0, 5 * time.Millisecond}, Seen: [3]time.Duration{0, p50}, P99: p99, Sending: time.Millisecond,
			},
			Loss: &lab.MeasuredShare{Count: 2}, Rate: &lab.MeasuredRate{Wanted: 1000, Seen: rate}, Unmeasured: []string{shaper},
		}
	}
	const msec = time.Millisecond
	for _, tt := range []struct {
		m             []lab.Measured
		p50, p99, off float64
	}{
		{[]lab.Measured{direction("wire", 6*msec, 7*msec, 990), direction("wire", 7*msec, 9*msec, 1005)}, 1000, 3000, -0.01},
		{[]lab.Measured{direction("wire", 8*msec, 8*msec, 1000), direction("wire", 6*msec, 7*msec, 1020)}, 2000, 2000, 0.02},
		{[]lab.Measured{direction("tbf", 5*msec, 6*msec, 1000), direction("tbf", 5*msec, 5*msec, 1000)}, 0, 1000, 0},
	} {
		e := linkError(tt.m)
		if e.P50 != tt.p50 || e.P99 != tt.p99 || e.Off == nil || math.Abs(*e.Off-tt.off) > 1e-9 || e.Lost != 4 || e.Rate != 1000 || e.Delay != 5 || len(e.Unmeasured) != 2 {
			t.Errorf("%+v, want %+v", e, tt)
		}
	}
	if e := linkError([]lab.Measured{{}, {}}); e.Off != nil || e.P50 != 0 {
		t.Errorf("nothing was measured: %+v", e)
	}
}

// A flooded link holds more than its queue alone, and no more than is promised.
func TestFlood(t *testing.T) {
	t.Parallel()
	for _, f := range floods() {
		if f.hold(); f.Held <= f.Queue || f.Held > f.Bound {
			t.Errorf("%+v", f)
		}
	}
}

// A real wire that is flooded takes more memory than a part of the queue, and no more than is promised of real packets.
func TestMemory(t *testing.T) {
	if err := wire.Probe(); errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	for _, f := range floods() {
		if err := f.remember(t.Context(), 2*time.Second); err != nil {
			t.Fatal(err)
		}
		t.Logf("%d bytes: %.2f MB; the model may hold %.2f", f.Frame, float64(f.Memory)/1e6, float64(f.Bound)/1e6)
		if f.Memory <= f.Queue/4 || f.Memory > f.Most {
			t.Errorf("%+v", f)
		}
	}
}

// The model of the cell allows the goal, with acknowledgements too, whose airtime they cost.
func TestModelAir(t *testing.T) {
	t.Parallel()
	a, err := modelAir()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", a)
	// 1683 Mbit/s are of UDP, 1472 bytes a frame.
	if math.Abs(a.Bare/1683e6*1472/1448-1) > 0.01 {
		t.Errorf("%.0f Mbit/s without acknowledgements", a.Bare/1e6)
	}
	if a.Model < GoalAir || a.Model > 0.95*a.Bare {
		t.Errorf("%.0f Mbit/s, without acknowledgements %.0f", a.Model/1e6, a.Bare/1e6)
	}
}

// What is asked for goes from end to end of what is promised.
func TestLinkGrid(t *testing.T) {
	t.Parallel()
	g := LinkGrid(false, false)
	if slices.Min(g.Rates[1:]) != topology.Mbit || slices.Max(g.Rates) != 2*topology.Gbit || slices.Min(g.Delays) != 0 || slices.Max(g.Delays) != 200*time.Millisecond {
		t.Errorf("%+v", g)
	}
	q := LinkGrid(true, false)
	for _, r := range q.Rates {
		if !slices.Contains(g.Rates, r) {
			t.Errorf("%v is not in the whole grid", r)
		}
	}
	// An emulated processor is asked for less, which is said.
	for quick, rates := range map[bool][]topology.Rate{
		false: {0, topology.Mbit, 10 * topology.Mbit, 100 * topology.Mbit}, true: {topology.Mbit},
	} {
		if e := LinkGrid(quick, true); !slices.Equal(e.Rates, rates) || !slices.Equal(e.Delays, LinkGrid(quick, false).Delays) || e.LeftOut == "" {
			t.Errorf("%+v", e)
		}
	}
	if g.LeftOut != "" {
		t.Error(g.LeftOut)
	}
}

// Links are measured, idle and beside a load, each with what can give its shape, and a wire is held against its goals.
func TestMeasureLinks(t *testing.T) {
	made, err := netns.New(1)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	made[0].Close()
	var besides []int // what was there to load the machine, as each thing was about to be measured
	o := LinkOptions{
		Grid: Grid{Rates: []topology.Rate{5 * topology.Mbit}, Delays: []time.Duration{0, 5 * time.Millisecond}, LeftOut: "much"}, Packets: 1000, Runs: 1,
		Duration: 200 * time.Millisecond, Machine: crypto.Machine{Kernel: "this one"},
	}
	out, err := MeasureLinks(t.Context(), o, func(string) {
		besides = append(besides, len(spinners(t)))
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out.Shapers)+len(out.Missing) != 3 || out.LoadMissing != "" || out.Machine != o.Machine || out.LeftOut != "much" || out.Started.IsZero() || out.Seconds <= 0 {
		t.Errorf("%+v", out)
	}
	if l := out.Load; l == nil || l.Processes != runtime.NumCPU() || l.Cores <= 0 {
		t.Errorf("%+v", l)
	}
	if left := spinners(t); len(left) > 0 {
		t.Errorf("the load goes on: %v", left)
	}
	for i, n := range besides {
		loaded := i < len(out.Errors) && out.Errors[i].Loaded
		if want := map[bool]int{true: runtime.NumCPU()}[loaded]; n != want {
			t.Errorf("as thing %d was measured there were %d processes beside it, want %d", i, n, want)
		}
	}
	want := 0
	for _, s := range out.Shapers {
		if want += 4; s == "tbf" { // which gives no delay
			want -= 2
		}
	}
	if len(out.Errors) != want {
		t.Errorf("%d links, want %d", len(out.Errors), want)
	}
	for i, e := range out.Errors {
		if e.Loaded != (i >= want/2) || e.Rate != 5e6 || e.Delay < 0 || e.P99 < e.P50 {
			t.Errorf("%+v", e)
		}
	}
	if judges := slices.Contains(out.Shapers, "wire") && caveat() == ""; (out.Wire != nil) != judges || (out.WireMissing == "") != judges || (len(out.Goals) > 0) != judges {
		t.Errorf("%+v", out)
	} else if judges {
		w := out.Wire
		if w == nil || len(w.Unshaped) != 1 || len(w.TCP) != 1 || len(w.P50) != 1 || len(w.IdleCPU) != 1 {
			t.Fatalf("%+v", w)
		}
		if w.Unshaped[0] <= w.TCP[0]*1e8 || w.P50[0] < 0 || w.P99[0] < w.P50[0] || w.IdleCPU[0] < 0 || w.IdleCPU[0] > float64(64) {
			t.Errorf("%+v", w)
		}
		// TCP has what the model gives it, or less; a busy machine gives it much less.
		if a := w.Air; len(a.TCP) != 1 || a.TCP[0] <= 0.02*a.Model || a.TCP[0] > 1.1*a.Bare || w.Congestion == "" || a.Width != 160 {
			t.Errorf("%+v, %q", a, w.Congestion)
		}
		if l := w.Loss; l.Packets != 1000 || l.Low > l.Seen || l.Seen > l.High || l.Wanted != 0.01 {
			t.Errorf("%+v", l)
		}
		for _, f := range w.Floods {
			if f.Held <= f.Queue || f.Held > f.Bound || f.Memory <= 0 {
				t.Errorf("%+v", f)
			}
		}
		if len(w.Floods) != len(floods()) {
			t.Errorf("%+v", w.Floods)
		}
	}
}
