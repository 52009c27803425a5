package crypto

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// The quantiles are those that NumPy and R (type 7) give.
func TestSpread(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		samples []int64
		want    Spread
	}{
		{nil, Spread{}},
		{[]int64{7}, Spread{7, 7, 7, 7}},
		{[]int64{3, 1}, Spread{1.2, 2, 2, 2.8}},
		{[]int64{10, 9, 8, 7, 6, 5, 4, 3, 2, 1}, Spread{1.9, 5.5, 5.5, 9.1}},
		{[]int64{2, 8, 0, 4, 1, 9, 9, 0}, Spread{0, 3, 4.125, 9}},
		{[]int64{1, 2, 3, 4, 1000}, Spread{1.4, 3, 202, 601.6}},
	} {
		got := spread(slices.Clone(c.samples))
		for _, p := range [][2]float64{{got.P10, c.want.P10}, {got.Median, c.want.Median}, {got.Mean, c.want.Mean}, {got.P90, c.want.P90}} {
			if math.Abs(p[0]-p[1]) > 1e-9 {
				t.Errorf("%v: %+v, want %+v", c.samples, got, c.want)
				break
			}
		}
	}
}

// The order of samples is nothing, and quantiles are between the least and the most.
func TestSpreadProperties(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		samples := make([]uint64, 1+r.IntN(50))
		for i := range samples {
			samples[i] = r.Uint64N(1000)
		}
		a := spread(slices.Clone(samples))
		r.Shuffle(len(samples), func(i, j int) { samples[i], samples[j] = samples[j], samples[i] })
		b := spread(slices.Clone(samples))
		if a != b || !a.ordered() || a.P10 < float64(slices.Min(samples)) || a.P90 > float64(slices.Max(samples)) {
			t.Fatalf("%v: %+v, %+v", samples, a, b)
		}
	}
}

// Samples that stand out are counted and stay in the figures; the tail of rejection sampling does not stand out.
func TestNoise(t *testing.T) {
	t.Parallel()
	steady := newSeries(1000)
	for i := range 1000 {
		ns, preempted := int64(1000+i%10), false
		switch {
		case i < 20: // slow and preempted
			ns, preempted = 5000, true
		case i < 50: // slow
			ns = 1600
		case i < 60: // preempted without a trace
			preempted = true
		case i < 65: // not slow enough
			ns = 1400
		}
		steady.add(ns, uint64(2*ns), preempted)
	}
	o := steady.operation(Verify)
	if o.Outliers != 50 || o.Preempted != 30 || o.Noisy != 60 || !o.Marked(1000) || o.Side != Client {
		t.Errorf("%+v", o)
	}
	if o.NS.Mean < 1095 || o.NS.Median < 1000 || o.NS.Median > 1010 {
		t.Errorf("noisy samples are missing from %+v", o.NS)
	}
	if o.Cycles != nil && math.Abs(o.Cycles.Mean-2*o.NS.Mean) > 1e-6 {
		t.Errorf("%v cycles, %v ns", o.Cycles, o.NS)
	}
	if limit := (Spread{P10: 9, Median: 100, Mean: 1, P90: 101}).Outlier(); limit != 150 {
		t.Errorf("steady samples are outliers from %v on", limit)
	}
	if limit := (Spread{P10: 9, Median: 100, Mean: 1, P90: 120}).Outlier(); limit != 300 {
		t.Errorf("spread samples are outliers from %v on", limit)
	}

	r := rand.New(rand.NewPCG(3, 4))
	signing := newSeries(10000)
	for range 10000 {
		attempts := int64(1)
		for r.Float64() > 0.2 {
			attempts++
		}
		signing.add(20_000+50_000*attempts, 1, false)
	}
	if o := signing.operation(Sign); o.Outliers > 2 {
		t.Errorf("%d outliers among attempts: %+v", o.Outliers, o.NS)
	}
}

func TestMarked(t *testing.T) {
	t.Parallel()
	if (Operation{Noisy: 100}).Marked(10000) || !(Operation{Noisy: 101}).Marked(10000) || (Operation{}).Marked(1) || !(Operation{Noisy: 1}).Marked(3) {
		t.Error("marked at another share than said")
	}
}

// Both parts of a sample are summed, and either's disturbance is the sum's.
func TestAnd(t *testing.T) {
	t.Parallel()
	a, b := newSeries(3), newSeries(3)
	a.add(1, 10, false)
	a.add(2, 20, true)
	a.add(3, 30, false)
	b.add(100, 1000, false)
	b.add(200, 2000, false)
	b.add(300, 3000, true)
	sum := a.and(b)
	if !slices.Equal(sum.ns, []int64{101, 202, 303}) || !slices.Equal(sum.ticks, []uint64{1010, 2020, 3030}) || !slices.Equal(sum.preempted, []bool{false, true, true}) {
		t.Errorf("%+v", sum)
	}
}
