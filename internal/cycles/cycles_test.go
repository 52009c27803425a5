package cycles

import (
	"errors"
	"runtime"
	"slices"
	"testing"
	"time"
)

func needCounter(t *testing.T) {
	t.Helper()
	if err := Check(); err != nil {
		t.Skip(err)
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	has := runtime.GOARCH == "amd64" || runtime.GOARCH == "arm64"
	if err := Check(); (err == nil) != has || err != nil && !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("on %s: %v", runtime.GOARCH, err)
	}
	if !has && (Now() != 0 || Core(10) != 0) {
		t.Errorf("counts %d, %v", Now(), Core(10))
	}
}

// The counter never goes back, and advances with time: the rate of two spans is the same.
func TestNow(t *testing.T) {
	needCounter(t)
	rate := func() float64 {
		began, t0 := time.Now(), Now()
		last := t0
		for time.Since(began) < 20*time.Millisecond {
			n := Now()
			if n < last {
				t.Fatalf("went back from %d to %d", last, n)
			}
			last = n
		}
		return float64(Now()-t0) / time.Since(began).Seconds()
	}
	// A disturbance between the two clocks makes one span wrong, so the closest of several pairs counts.
	var off []float64
	for range 20 {
		a, b := rate(), rate()
		off = append(off, max(a/b, b/a)-1)
	}
	if best := slices.Min(off); best > 0.001 {
		t.Errorf("rates differ by %v", best)
	}
}

// A chain has as many additions as are counted, and its time depends on nothing else.
func TestCore(t *testing.T) {
	for _, n := range []uint64{0, 1, 7, 1000} {
		if got := adds(n); got != n*chain {
			t.Errorf("%d rounds add %d times, want %d", n, got, n*chain)
		}
	}
	needCounter(t)
	ratios := func(n int) float64 {
		var all []float64
		for range 20 {
			all = append(all, Core(n))
		}
		return slices.Max(all)
	}
	short, long := ratios(2000), ratios(20000)
	if short < 0.05 || long < 0.05 || short/long > 1.1 || long/short > 1.1 {
		t.Errorf("%v core cycles a tick in a short chain, %v in a long one", short, long)
	}
}

// What is between two readings is between them: work that is twice as long counts about twice as much.
func TestOrder(t *testing.T) {
	needCounter(t)
	took := func(n uint64) uint64 {
		best := ^uint64(0)
		for range 200 {
			a := now()
			adds(n)
			best = min(best, now()-a)
		}
		return best
	}
	empty, one, two := took(0), took(4000), took(8000)
	if one <= empty || float64(two-empty) < 1.7*float64(one-empty) || float64(two-empty) > 2.3*float64(one-empty) {
		t.Errorf("no work %d, work %d, twice the work %d", empty, one, two)
	}
}

func TestAsk(t *testing.T) {
	t.Parallel()
	m := Ask()
	if m.Known != (runtime.GOARCH == "amd64") || m.Hypervisor != "" && !m.Virtual {
		t.Errorf("%+v", m)
	}
	if (Machine{Hypervisor: "KVMKVMKVM"}).Emulated() || !(Machine{Hypervisor: "TCGTCGTCGTCG"}).Emulated() {
		t.Error("the emulator is not told from the others")
	}
	t.Logf("%s, %+v, %.3f core cycles a tick", Name, m, Core(2000))
}

func BenchmarkNow(b *testing.B) {
	for b.Loop() {
		Now()
	}
}
