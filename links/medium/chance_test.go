package medium

import (
	"math"
	"slices"
	"testing"
	"time"

	"pqlab/topology"
)

// within tells whether seen of n is likely for the probability p: it lies farther off once in ten million times.
func within(seen, n int, p float64) bool {
	return math.Abs(float64(seen)-float64(n)*p) <= 5.33*math.Sqrt(float64(n)*p*(1-p))
}

func TestLoss(t *testing.T) {
	t.Parallel()
	const n = 100_000
	for _, tt := range []struct {
		shape     topology.Shape
		share     float64 // of packets
		burst     float64 // mean, in packets
		deviation float64 // of one burst's length
	}{
		{topology.Shape{Loss: 0.01}, 0.01, 1 / 0.99, 0.1},
		{topology.Shape{Loss: 0.3}, 0.3, 1 / 0.7, math.Sqrt(0.3) / 0.7},
		{topology.Shape{Loss: 1}, 1, n, 1},
		{topology.Shape{Loss: 0.1, LossCorrelation: 0.5}, 0.1, 1 / 0.45, math.Sqrt(0.55) / 0.45},
		{topology.Shape{GilbertElliott: topology.GilbertElliott{P: 0.01, R: 0.25}}, 0.01 / 0.26, 4, math.Sqrt(0.75) / 0.25},
		{topology.Shape{GilbertElliott: topology.GilbertElliott{P: 0.5, R: 0.5, Bad: 0.3, Good: 0.1}}, 0.2, 1 / 0.8, math.Sqrt(0.2) / 0.8},
	} {
		lost := make([]bool, n)
		for _, p := range drive(t, newTest(tt.shape), evenly(n, time.Microsecond, 100)) {
			lost[p.Number] = p.Fate == LostChance
		}
		count, bursts := 0, 0
		for i, l := range lost {
			if l {
				count++
				if i == 0 || !lost[i-1] {
					bursts++
				}
			}
		}
		mean := float64(count) / float64(bursts)
		if math.Abs(mean-tt.burst) > 5.33*tt.deviation/math.Sqrt(float64(bursts)) {
			t.Errorf("%v: bursts of %.3f, want %.3f", tt.shape, mean, tt.burst)
		}
		// Bursts make the share vary more: by as many independent losses as there are bursts.
		if spread := 5.33 * math.Sqrt(n*tt.share*(1-tt.share)*min(2*tt.burst, n)); math.Abs(float64(count)-n*tt.share) > spread {
			t.Errorf("%v: %d of %d lost", tt.shape, count, n)
		}
	}
}

func TestShares(t *testing.T) {
	t.Parallel()
	const n, delay = 50_000, 10 * time.Millisecond
	try := func(s topology.Shape) (lost, copies, flipped, early int, all []left) {
		all = drive(t, newTest(s), evenly(n, time.Microsecond, 100))
		for _, p := range all {
			switch {
			case p.Fate.Lost():
				lost++
				continue
			case p.Copy:
				copies++
			}
			if p.Flip > 0 {
				flipped++
			}
			if p.Due < p.Entered+delay {
				early++
			}
		}
		return lost, copies, flipped, early, all
	}
	if lost, copies, _, _, _ := try(topology.Shape{Duplication: 0.02}); lost != 0 || !within(copies, n, 0.02) {
		t.Errorf("duplication: %d lost, %d twice", lost, copies)
	}
	// Of what is both lost and duplicated, one comes.
	if lost, copies, _, _, _ := try(topology.Shape{Duplication: 0.4, Loss: 0.25}); !within(lost, n, 0.25*0.6+0.75*0.4*0.25) || !within(copies, n, 0.75*0.4*0.75) {
		t.Errorf("duplication and loss: %d lost, %d twice", lost, copies)
	}
	_, _, flipped, _, all := try(topology.Shape{Corruption: 0.05})
	var bits [800]int
	for _, p := range all {
		if p.Flip < 0 || p.Flip > 800 {
			t.Fatalf("bit %d of 800", p.Flip)
		}
		if p.Flip > 0 {
			bits[p.Flip-1]++
		}
	}
	if hit := len(bits) - slices.Index(slices.Sorted(slices.Values(bits[:])), slices.Max(bits[:])); !within(flipped, n, 0.05) || slices.Max(bits[:]) > 20 || hit == len(bits) {
		t.Errorf("corruption: %d, a bit up to %d times", flipped, slices.Max(bits[:]))
	}
	if _, _, _, early, _ := try(topology.Shape{Delay: delay, Reordering: 0.1}); !within(early, n, 0.1) {
		t.Errorf("reordering: %d", early)
	}
}

// The delay has the mean and the standard deviation asked for, and the distribution's quantiles.
func TestJitter(t *testing.T) {
	t.Parallel()
	const n, mean, jitter = 100_000, 50 * time.Millisecond, 4 * time.Millisecond
	for _, tt := range []struct {
		shape            topology.Shape
		low, middle, top float64 // quantiles 10 %, 50 % and 85 %, in standard deviations
		tail             float64 // what a mean of so many may be off by, in standard deviations of the mean
	}{
		{topology.Shape{}, -1.28, 0, 1.036, 5},
		{topology.Shape{Distribution: "uniform"}, -1.386, 0, 1.212, 5},
		{topology.Shape{Distribution: "pareto"}, -0.54, -0.277, 0.441, 5},
		{topology.Shape{Distribution: "paretonormal"}, -0.735, -0.187, 0.53, 5},
		{topology.Shape{Table: []float64{0, 0, 0, 0, 1}}, -0.5, -0.5, 2, 5},
	} {
		tt.shape.Delay, tt.shape.Jitter, tt.shape.Unordered = mean, jitter, true
		var delays []float64
		for _, p := range drive(t, newTest(tt.shape), evenly(n, time.Millisecond, 100)) {
			delays = append(delays, float64(p.Due-p.Entered-mean)/float64(jitter))
		}
		slices.Sort(delays)
		sum, square := 0.0, 0.0
		for _, d := range delays {
			sum += d
			square += d * d
		}
		if len(delays) != n || math.Abs(sum/n) > tt.tail/math.Sqrt(n) || math.Abs(math.Sqrt(square/n)-1) > 0.06 {
			t.Errorf("%v: %d came, mean %.4f, standard deviation %.4f", tt.shape, len(delays), sum/n, math.Sqrt(square/n))
		}
		for _, q := range []struct{ at, want float64 }{{0.1, tt.low}, {0.5, tt.middle}, {0.85, tt.top}} {
			if got := delays[int(q.at*n)]; math.Abs(got-q.want) > 0.03 {
				t.Errorf("%v: quantile %.2f is %.3f, want %.3f", tt.shape, q.at, got, q.want)
			}
		}
	}
}

// Jitter that is larger than the delay lets packets come at once, and none before it was sent or before another.
func TestJitterBeyondDelay(t *testing.T) {
	t.Parallel()
	const n, mean, jitter = 2000, time.Millisecond, 5 * time.Millisecond
	for _, unordered := range []bool{true, false} {
		s := topology.Shape{Delay: mean, Jitter: jitter, Distribution: "uniform", Unordered: unordered}
		c := newChance(s, 1)
		atOnce, kept := 0, 0 // what is drawn, and what came of that
		for range n {
			if d, _, _ := c.next(100); d.delay < 0 {
				t.Fatalf("a delay of %v", d.delay)
			} else if d.delay == 0 {
				atOnce++
			}
		}
		for _, p := range drive(t, newTest(s), evenly(n, 100*time.Millisecond, 100)) {
			if p.Due == p.Entered {
				kept++
			}
		}
		// Uniform with that deviation lies within √3 of it: below nothing in (√3·5−1)/(2·√3·5) of all cases.
		if share := (math.Sqrt(3)*5 - 1) / (2 * math.Sqrt(3) * 5); kept != atOnce || !within(atOnce, n, share) {
			t.Errorf("unordered %v: of %d packets %d have no delay, %d come at once", unordered, n, atOnce, kept)
		}
	}
}

// In order, a packet waits for those before it and for nothing else.
func TestJitterInOrder(t *testing.T) {
	t.Parallel()
	s := topology.Shape{Delay: 10 * time.Millisecond, Jitter: 5 * time.Millisecond}
	sends := evenly(5000, 200*time.Microsecond, 100)
	s.Unordered = true
	free := make([]time.Duration, len(sends))
	for _, p := range drive(t, newTest(s), sends) {
		free[p.Number] = p.Due
	}
	s.Unordered = false
	last, waited := time.Duration(0), 0
	for _, p := range drive(t, newTest(s), sends) {
		last = max(last, free[p.Number])
		if p.Due != last {
			t.Fatalf("packet %d comes at %v, want %v", p.Number, p.Due, last)
		}
		if p.Due != free[p.Number] {
			waited++
		}
	}
	if waited == 0 {
		t.Error("none waited")
	}
}

func TestLossTrace(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		trace []int
		want  string // of each packet, whether it is lost
	}{
		{[]int{1, 2}, ".xx.xx.xx.xx"},
		{[]int{0, 1, 2}, "x..x..x..x.."},
		{[]int{3, 1, 1, 2, 1}, "...x.xx....x"},
		{[]int{2, 1, 1}, "..x...x...x."},
	} {
		got := []byte("............")
		for _, p := range drive(t, newTest(topology.Shape{LossTrace: tt.trace}), evenly(len(tt.want), time.Millisecond, 100)) {
			if p.Fate == LostTrace {
				got[p.Number] = 'x'
			}
		}
		if string(got) != tt.want {
			t.Errorf("%v: %s, want %s", tt.trace, got, tt.want)
		}
	}
}

func TestOutages(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	s := topology.Shape{Delay: 30 * ms, Outages: []topology.Outage{{Start: 100 * ms, Length: 20 * ms, Every: 50 * ms}, {Start: 10 * ms, Length: 5 * ms}}}
	for _, p := range drive(t, newTest(s), evenly(400, ms, 100)) {
		at := int(p.Entered / ms)
		out := at >= 10 && at < 15 || at >= 100 && (at-100)%50 < 20
		if out != (p.Fate == LostOutage) || !out && p.Due != p.Entered+30*ms {
			t.Errorf("a packet that entered at %v is %v at %v", p.Entered, p.Fate, p.Due)
		}
	}
}

// An outage's times count from when the shape began to hold.
func TestOutageAfterSet(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	l := newTest(topology.Shape{})
	l.Set(50*ms, 0, topology.Shape{Outages: []topology.Outage{{Start: 10 * ms, Length: 5 * ms}}})
	for i := 50; i < 100; i++ {
		l.Enter(time.Duration(i)*ms, 0, Packet{Size: 100, Frames: 1})
		l.Leave(time.Duration(i)*ms, func(_ int, p Packet) {
			if out := i >= 60 && i < 65; out != p.Fate.Lost() {
				t.Errorf("at %d ms it is %v", i, p.Fate)
			}
		})
	}
}

// The first packet fares as any other.
func TestFirstPacket(t *testing.T) {
	t.Parallel()
	const n = 20_000
	lost := 0
	for seed := range uint64(n) {
		c := newChance(topology.Shape{GilbertElliott: topology.GilbertElliott{P: 0.1, R: 0.3}}, seed)
		if first, _, _ := c.next(100); first.lost.Lost() {
			lost++
		}
	}
	if !within(lost, n, 0.25) {
		t.Errorf("%d of %d lost", lost, n)
	}
}
