package samples

import (
	"math"
	"math/rand/v2"
	"testing"
)

func TestQuantile(t *testing.T) {
	t.Parallel()
	never := Never()
	for _, c := range []struct {
		values []float64
		q      float64
		want   float64
	}{
		{[]float64{7}, 0.5, 7},
		{[]float64{3, 1, 2}, 0.5, 2},
		{[]float64{4, 1, 3, 2}, 0.5, 2.5},
		{[]float64{4, 1, 3, 2}, 0.25, 1.5},
		{[]float64{5, 4, 3, 2, 1}, 0.25, 2},
		{[]float64{5, 4, 3, 2, 1}, 0.75, 4},
		{[]float64{5, 4, 3, 2, 1}, 0, 1},
		{[]float64{5, 4, 3, 2, 1}, 1, 5},
		{[]float64{never, 1, 2}, 0.5, 2},
		{[]float64{never, 1}, 0.5, never},
		{[]float64{never, never, 1}, 0.5, never},
	} {
		if got := Quantile(c.values, c.q); got != c.want {
			t.Errorf("%v of %v: %v, want %v", c.q, c.values, got, c.want)
		}
	}
	if got := Quantile(nil, 0.5); !math.IsNaN(got) {
		t.Errorf("of nothing: %v", got)
	}
}

// Critical values of U as they are printed: "significant if U ≤ k", which is U < c with c = k+1.
func TestCritical(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		n, m        int
		probability float64 // of each side
		want        int
	}{
		{3, 3, 0.025, 0}, {4, 4, 0.025, 1}, {5, 5, 0.025, 3}, {8, 8, 0.025, 14}, {10, 10, 0.025, 24}, {20, 20, 0.025, 128},
		{5, 10, 0.025, 9}, {10, 5, 0.025, 9}, {12, 15, 0.025, 50},
		{5, 5, 0.005, 1}, {8, 8, 0.005, 8}, {10, 10, 0.005, 17}, {20, 20, 0.005, 106},
		{0, 5, 0.025, 0}, {0, 0, 0.025, 0},
	} {
		if got := critical(c.n, c.m, c.probability); got != c.want {
			t.Errorf("%d and %d, %v: %d, want %d", c.n, c.m, c.probability, got, c.want)
		}
	}
	// The approximation continues the exact values.
	if exact, approximate := critical(50, 50, 0.005), critical(50, 51, 0.005); approximate < exact || approximate > exact+35 {
		t.Errorf("50 and 50: %d, 50 and 51: %d", exact, approximate)
	}
}

func TestCompare(t *testing.T) {
	t.Parallel()
	never := Never()
	low, high := []float64{1, 2, 3, 4, 5, 6}, []float64{11, 12, 13, 14, 15, 16}
	for name, c := range map[string]struct {
		a, b  []float64
		shift float64
		sign  int
	}{
		"below":                 {low, high, -10, -1},
		"above":                 {high, low, 10, 1},
		"the same":              {low, low, 0, 0},
		"too few":               {low[:2], high[:2], -10, 0},
		"none":                  {nil, high, math.NaN(), 0},
		"one never":             {append([]float64{never}, low...), high, -9.5, 0},
		"all never":             {[]float64{never, never, never, never, never, never}, low, never, 1},
		"never on both sides":   {[]float64{never, never, never, never, never, never}, []float64{never, never, never, never, never, never}, 0, 0},
		"the other never":       {low, []float64{never, never, never, never, never, never}, -never, -1},
		"half of both is never": {append([]float64{never, never, never}, low[:3]...), append([]float64{never, never, never}, low[:3]...), 0, 0},
	} {
		got := Compare(c.a, c.b, 0.99)
		if got.Sign() != c.sign || got.Shift != c.shift && !(math.IsNaN(c.shift) && math.IsNaN(got.Shift)) {
			t.Errorf("%s: %+v, want %v with sign %d", name, got, c.shift, c.sign)
		}
		if !(got.Low <= got.High) || got.Low > got.Shift || got.High < got.Shift {
			t.Errorf("%s: interval %+v", name, got)
		}
	}
}

// The interval holds the true shift as often as it says, whatever the distribution: here of long tails.
func TestCoverage(t *testing.T) {
	t.Parallel()
	draws := rand.New(rand.NewPCG(1, 2))
	tail := func() float64 { return math.Exp(2 * draws.NormFloat64()) }
	const runs, shift = 2000, 3.0
	missed, wide := 0, 0
	for range runs {
		a, b := make([]float64, 11), make([]float64, 13)
		for i := range a {
			a[i] = tail() + shift
		}
		for i := range b {
			b[i] = tail()
		}
		d := Compare(a, b, 0.95)
		if d.Low > shift || d.High < shift {
			missed++
		}
		if d.Sign() == 0 {
			wide++
		}
	}
	// 5 % of 2000 are 100, with a standard deviation of 10; the exact test may only be more careful.
	if missed > 150 || missed < 40 {
		t.Errorf("the interval missed the shift in %d of %d", missed, runs)
	}
	if wide == runs {
		t.Error("no difference was ever seen")
	}
}
