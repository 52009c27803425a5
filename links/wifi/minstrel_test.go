package wifi

import (
	"math"
	"testing"
	"time"
)

// Rates of which less than a tenth arrives are of no use, and of those of which more than nine tenths do all are as good.
func TestThroughput(t *testing.T) {
	t.Parallel()
	m := mustNew(t, Config{Stations: []Station{{Profile: profile(t, "jetson-ac-2x2-80")}}})
	f := m.stations[0].up
	r := &f.rates[len(f.rates)-1]
	of := func(share float64) float64 { return f.control.throughput(r, share) }
	if of(0.0999) != 0 || of(0.1) == 0 || of(0.9) != of(1) || of(0.89) >= of(0.9) || math.Abs(of(0.4)/of(0.8)-0.5) > 1e-9 {
		t.Errorf("%v at 0.0999, %v at 0.1, %v at 0.89, %v at 0.9, %v at 1", of(0.0999), of(0.1), of(0.89), of(0.9), of(1))
	}
}

// What was known of a rate counts three quarters, each 50 ms.
func TestAverages(t *testing.T) {
	t.Parallel()
	m := mustNew(t, Config{Stations: []Station{{Profile: profile(t, "phone-ac-1x1-80")}}})
	f := m.stations[0].up
	learn := func(at time.Duration, acked int) float64 {
		f.control.learn(f, &transmission{flow: f, rate: 4, seqs: make([]uint64, 10), to: at}, acked)
		return f.control.stats[4].share
	}
	for i, tt := range []struct {
		at    time.Duration
		acked int
		want  float64
	}{
		{0, 8, 0.8}, // the first of a rate is all that is known
		{20 * time.Millisecond, 0, 0.8},
		{49 * time.Millisecond, 10, 0.8},
		{50 * time.Millisecond, 2, 0.75*0.8 + 0.25*12/30},
		{99 * time.Millisecond, 10, 0.7},
		{100 * time.Millisecond, 10, 0.75*0.7 + 0.25},
	} {
		if got := learn(tt.at, tt.acked); math.Abs(got-tt.want) > 1e-12 {
			t.Errorf("%d: after %v %v, want %v", i, tt.at, got, tt.want)
		}
	}
}
