package traffic

import (
	"math"
	"testing"
	"time"
)

// A flood is sent, whole, at no more than its rate, one by one or many at a time.
func TestFlood(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		perSecond float64
		size      int
		most      int
	}{{200, 100, 100}, {20000, 1000, 100}, {20000, 1000, 3}} {
		p := probing(t, tt.size)
		const d = 200 * time.Millisecond
		began := time.Now()
		if err := p.Flood(t.Context(), tt.perSecond, d, tt.most); err != nil {
			t.Fatal(err)
		}
		took := time.Since(began)
		got, err := p.Settle(t.Context(), time.Second)
		if err != nil {
			t.Fatal(err)
		}
		most := int(math.Ceil(tt.perSecond*took.Seconds())) + 64
		if n := len(got.Sent); n == 0 || n > most || got.Missing() > 0 || got.Damaged > 0 {
			t.Errorf("%+v: of %d in %v, at most %d, %d are missing and %d damaged", tt, n, took, most, got.Missing(), got.Damaged)
		}
	}
}

// The bounds are where what was seen stops being likely; by hand for none and for all (Clopper and Pearson 1934).
func TestInterval(t *testing.T) {
	t.Parallel()
	const miss = 0.05
	for _, tt := range []struct {
		k, n      int
		low, high float64
	}{
		{0, 0, 0, 1},
		{0, 20, 0, 1 - math.Pow(miss/2, 1.0/20)},
		{20, 20, math.Pow(miss/2, 1.0/20), 1},
		{2, 20, 0.0123, 0.3170},
		{1000, 100000, 0.00939, 0.01064},
	} {
		low, high := Interval(tt.k, tt.n, miss)
		if math.Abs(low-tt.low) > 1e-4 || math.Abs(high-tt.high) > 1e-4 {
			t.Errorf("%d of %d: %v to %v, want %v to %v", tt.k, tt.n, low, high, tt.low, tt.high)
		}
	}
}

// Finish does not wait for quiet once all has come, and does while something is missing.
func TestFinish(t *testing.T) {
	t.Parallel()
	p := probing(t, 100)
	if err := p.Send(t.Context(), 50, 0); err != nil {
		t.Fatal(err)
	}
	if got, err := p.Finish(t.Context(), time.Hour); err != nil || got.Missing() != 0 || len(got.Arrived) != 50 {
		t.Errorf("%+v, %v", got, err)
	}
	p.mu.Lock()
	p.sent = append(p.sent, time.Now()) // on its way for ever
	p.mu.Unlock()
	const quiet = 20 * time.Millisecond
	began := time.Now()
	if got, err := p.Finish(t.Context(), quiet); err != nil || got.Missing() != 1 || time.Since(began) < quiet {
		t.Errorf("%+v, %v", got, err)
	}
}
