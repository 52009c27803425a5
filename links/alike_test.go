package links

import (
	"math"
	"slices"
	"testing"
	"time"

	"pqlab/topology"
	"pqlab/traffic"
)

// One topology means the same on both: what netem does to packets and what a wire does to as many others are samples of one
// distribution.
func TestWireLikeNetem(t *testing.T) {
	netem, wire := need(t, "netem"), need(t, "wire")
	const msec = time.Millisecond
	over := func(t *testing.T, shaper Shaper, s topology.Shape, size, n int, gap time.Duration) traffic.Fates {
		t.Helper()
		made, a, b := pairOf(t, shaped(s), shaper)
		p := newProber(t, made, a, b, size)
		p.pace(n, gap)
		return p.arrivals(time.Second)
	}
	// same tells whether two counts of n are likely of one share, whose bursts make it vary so many times more.
	same := func(x, y, n int, inflation float64) bool {
		share := float64(x+y) / float64(2*n)
		return math.Abs(float64(x-y)) <= 5.33*math.Sqrt(2*float64(n)*share*(1-share)*inflation)
	}

	t.Run("delay", func(t *testing.T) {
		const delay, n = 30 * msec, 300
		steadily(t, func() (late bool) {
			s := topology.Shape{Delay: delay}
			x, y := over(t, netem, s, 100, n, msec).Delays(), over(t, wire, s, 100, n, msec).Delays()
			if len(x) != n || len(y) != n || x[0] < delay || y[0] < delay {
				t.Fatalf("netem: %d of %d; wire: %d", len(x), n, len(y))
			}
			t.Logf("median of netem %v, of the wire %v", x[n/2], y[n/2])
			return (x[n/2] - y[n/2]).Abs() > 3*msec
		})
	})
	for name, tt := range map[string]struct {
		shape topology.Shape
		n     int
		gap   time.Duration
	}{
		"jitter":           {topology.Shape{Delay: 60 * msec, Jitter: 12 * msec}, 500, 10 * msec}, // few have to wait for those before them
		"jitter unordered": {topology.Shape{Delay: 60 * msec, Jitter: 12 * msec, Unordered: true}, 1000, 2 * msec},
		"pareto":           {topology.Shape{Delay: 60 * msec, Jitter: 12 * msec, Distribution: "pareto", Unordered: true}, 1000, 2 * msec},
	} {
		t.Run(name, func(t *testing.T) {
			s, n := tt.shape, tt.n
			steadily(t, func() (late bool) {
				x, y := over(t, netem, s, 100, n, tt.gap).Delays(), over(t, wire, s, 100, n, tt.gap).Delays()
				if len(x) != n || len(y) != n {
					t.Fatalf("netem: %d of %d; wire: %d", len(x), n, len(y))
				}
				d := apart(x, y)
				t.Logf("netem: quartiles %v, %v, %v; wire: %v, %v, %v; distributions differ by %.3f", x[n/4], x[n/2], x[n*3/4], y[n/4], y[n/2], y[n*3/4], d)
				// Kolmogorov and Smirnov's statistic for two samples is more once in a thousand, and the rest is for what is late.
				return d > 1.95*math.Sqrt(2/float64(n))+0.03
			})
		})
	}
	for name, tt := range map[string]struct {
		shape     topology.Shape
		inflation float64 // of the variance of the number of losses, and of bursts' lengths
		burst     float64 // deviation of a burst's length
	}{
		"loss":            {topology.Shape{Loss: 0.05}, 1, 0.24},
		"Gilbert-Elliott": {topology.Shape{GilbertElliott: topology.GilbertElliott{P: 0.02, R: 0.25}}, 1 + 2*0.73/0.27, math.Sqrt(0.75) / 0.25},
		"loss correlated": {topology.Shape{Loss: 0.1, LossCorrelation: 0.5}, 3, math.Sqrt(0.55) / 0.45},
	} {
		t.Run(name, func(t *testing.T) {
			const n = 10_000
			x, y := over(t, netem, tt.shape, 100, n, 0), over(t, wire, tt.shape, 100, n, 0)
			bursts := [2]float64{float64(x.Bursts()), float64(y.Bursts())}
			mean := [2]float64{float64(x.Missing()) / bursts[0], float64(y.Missing()) / bursts[1]}
			t.Logf("netem lost %d of %d in bursts of %.2f, the wire %d in bursts of %.2f", x.Missing(), n, mean[0], y.Missing(), mean[1])
			if x.Missing() == 0 || y.Missing() == 0 || !same(x.Missing(), y.Missing(), n, tt.inflation) {
				t.Errorf("netem lost %d of %d, the wire %d", x.Missing(), n, y.Missing())
			}
			if math.Abs(mean[0]-mean[1]) > 5.33*tt.burst*math.Sqrt(1/bursts[0]+1/bursts[1]) {
				t.Errorf("bursts of %.2f with netem, of %.2f with the wire", mean[0], mean[1])
			}
		})
	}
	t.Run("duplication", func(t *testing.T) {
		const n = 10_000
		s := topology.Shape{Duplication: 0.05, Loss: 0.1}
		x, y := over(t, netem, s, 100, n, 0), over(t, wire, s, 100, n, 0)
		_, twiceX := x.Overtaken()
		_, twiceY := y.Overtaken()
		t.Logf("netem: %d twice, %d lost; wire: %d, %d", twiceX, x.Missing(), twiceY, y.Missing())
		if twiceX == 0 || twiceY == 0 || !same(twiceX, twiceY, n, 1) || !same(x.Missing(), y.Missing(), n, 1) {
			t.Errorf("netem: %d twice, %d lost; wire: %d, %d", twiceX, x.Missing(), twiceY, y.Missing())
		}
	})
	// Of more than fits both drop as much, and pass the rest at the rate.
	t.Run("rate and queue", func(t *testing.T) {
		const size, n = 1000, 300
		s := topology.Shape{Rate: 2 * topology.Mbit, Delay: 50 * msec, Queue: topology.Queue{Time: 150 * msec}}
		fits := func(got traffic.Fates) (packets int, rate float64) {
			if len(got.Arrived) < 20 {
				t.Fatalf("%d of %d came", len(got.Arrived), n)
			}
			const first = 8 // that a token bucket may pass at once
			last := len(got.Arrived) - 1
			return last + 1, float64((last-first)*(size+14+28)*8) / got.Arrived[last].At.Sub(got.Arrived[first].At).Seconds()
		}
		steadily(t, func() (late bool) {
			x, rateX := fits(over(t, netem, s, size, n, msec)) // four times the rate, which an emulated processor sends
			y, rateY := fits(over(t, wire, s, size, n, msec))
			t.Logf("netem passed %d at %.3g bit/s, the wire %d at %.3g", x, rateX, y, rateY)
			off := func(a, b, share float64) bool { return math.Abs(a-b) > share*(a+b)/2 }
			return off(float64(x), float64(y), 0.25) || off(rateX, rateY, 0.15)
		})
	})
	// What is known not to be the same: a token bucket passes single packets at once, and a wire takes the time of sending.
	t.Run("single packet", func(t *testing.T) {
		const size, n = 1472, 20
		const sending = 12112 * time.Microsecond // of 1514 bytes
		s := topology.Shape{Rate: topology.Mbit}
		steadily(t, func() (late bool) {
			x, y := over(t, netem, s, size, n, 60*msec).Delays(), over(t, wire, s, size, n, 60*msec).Delays()
			if len(x) != n || len(y) != n || y[0] < sending {
				t.Fatalf("netem: %d of %d came; wire: %d, after %v", len(x), n, len(y), y[:min(len(y), 1)])
			}
			t.Logf("median of netem %v, of the wire %v", x[n/2], y[n/2])
			return (y[n/2] - x[n/2] - sending).Abs() > 4*msec
		})
	})
}

// apart is Kolmogorov and Smirnov's statistic: the most by which the shares of two sorted samples up to any value differ.
func apart(x, y []time.Duration) (d float64) {
	for _, at := range slices.Concat(x, y) {
		below := func(s []time.Duration) float64 {
			i, _ := slices.BinarySearch(s, at+1)
			return float64(i) / float64(len(s))
		}
		d = max(d, math.Abs(below(x)-below(y)))
	}
	return d
}

func TestApart(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		x, y []time.Duration
		want float64
	}{
		{[]time.Duration{1, 2}, []time.Duration{1, 2}, 0},
		{[]time.Duration{1, 2}, []time.Duration{3, 4, 5}, 1},
		{[]time.Duration{1, 2, 3, 4}, []time.Duration{3, 4}, 0.5},
		{[]time.Duration{1, 1, 1, 4}, []time.Duration{1, 4}, 0.25},
	} {
		if got := apart(tt.x, tt.y); got != tt.want {
			t.Errorf("%v and %v: %v, want %v", tt.x, tt.y, got, tt.want)
		}
		if got := apart(tt.y, tt.x); got != tt.want {
			t.Errorf("%v and %v: %v, want %v", tt.y, tt.x, got, tt.want)
		}
	}
}
