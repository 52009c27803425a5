package topology_test

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"pqlab/topology"
)

// Outages are refused if, and only if, a walk through the nanoseconds finds one in two of them, or none that is free.
func TestOutages(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4))
	walk := func(outages []topology.Outage) bool {
		const warm, lap = 60, 2 * 2520 // after which all has begun; in which all repeat
		free := false
		for now := range time.Duration(warm + lap) {
			in := 0
			for _, o := range outages {
				since := now - o.Start
				if o.Every > 0 && since >= 0 {
					since %= o.Every
				}
				if since >= 0 && since < o.Length {
					in++
				}
			}
			if in > 1 {
				return false
			}
			free = free || in == 0 && now >= warm
		}
		return free
	}
	accepted := 0
	const n = 3000
	for range n {
		var outages []topology.Outage
		for range 1 + r.IntN(3) {
			every := time.Duration(r.IntN(11)) // all divide 2520
			length := time.Duration(1 + r.IntN(3))
			if every > 0 && length >= every {
				length, every = 1, 2
			}
			outages = append(outages, topology.Outage{Start: time.Duration(r.IntN(40)), Length: length, Every: every})
		}
		_, err := topology.New("x").Host("a").Host("b").Ethernet("a", "b", topology.Outages(outages...)).Plan()
		want := walk(outages)
		if (err == nil) != want {
			t.Errorf("%v: %v, want accepted %v", outages, err, want)
		}
		if want {
			accepted++
		}
	}
	if accepted < n/10 || accepted > n*9/10 {
		t.Errorf("%d of %d accepted: not much of a test", accepted, n)
	}
}

func TestMeanRate(t *testing.T) {
	t.Parallel()
	huge := topology.Rate(1<<64 - 1)
	for _, c := range []struct {
		shape topology.Shape
		want  topology.Rate
	}{
		{topology.Shape{}, 0},
		{topology.Shape{Rate: 7}, 7},
		{topology.Shape{RateTrace: []topology.RateStep{step(time.Second, 30), step(2*time.Second, 0)}}, 10},
		{topology.Shape{RateTrace: []topology.RateStep{step(365*24*time.Hour, huge), step(ms, huge)}}, huge},
	} {
		if got := c.shape.MeanRate(); got != c.want {
			t.Errorf("%v: %d, want %d", c.shape, got, c.want)
		}
	}
}

// A mean is said with four digits.
func TestMeanRateIsSaid(t *testing.T) {
	t.Parallel()
	for r, want := range map[topology.Rate]string{16_979_166: "16970kbit/s", 1: "1bit/s", 9999: "9999bit/s", 10_001: "10kbit/s", topology.Gbit: "1Gbit/s"} {
		s := topology.Shape{RateTrace: []topology.RateStep{{Rate: r, Length: time.Second}}}
		if _, mean, _ := strings.Cut(s.Scheduled()[0], "mean "); mean != want {
			t.Errorf("%d is said as %q, want %q", r, mean, want)
		}
	}
}

// What is scheduled is an impairment, so that no shaper that cannot do it passes over it.
func TestScheduledIsSaid(t *testing.T) {
	t.Parallel()
	for _, s := range []topology.Shape{
		{RateTrace: []topology.RateStep{step(time.Second, 30)}},
		{LossTrace: []int{3, 1}},
		{Queue: topology.Queue{Kind: topology.CoDel}},
		{Queue: topology.Queue{Bytes: 5000}},
		{Outages: []topology.Outage{{Length: 1}}},
	} {
		if len(s.Impairments()) != 1 || len(s.Scheduled()) != 1 || strings.Contains(s.String(), "unshaped") {
			t.Errorf("%+v: %q, %q, %q", s, s.Impairments(), s.Scheduled(), s)
		}
		if s.Random() {
			t.Errorf("%v: is random", s)
		}
		if want := s.LossTrace != nil || s.Outages != nil; s.Loses() != want {
			t.Errorf("%v: loses: %v", s, s.Loses())
		}
	}
	for _, s := range []topology.Shape{{Corruption: 0.1}, {Loss: 0.1}, {GilbertElliott: topology.GilbertElliott{P: 0.1, R: 0.1}}} {
		if !s.Random() || !s.Loses() {
			t.Errorf("%v: random %v, loses %v", s, s.Random(), s.Loses())
		}
	}
}

func TestControl(t *testing.T) {
	t.Parallel()
	if target, interval := (topology.Queue{}).Control(); target != 5*ms || interval != 100*ms {
		t.Errorf("defaults %v and %v", target, interval)
	}
	if target, interval := (topology.Queue{Target: 1, Interval: 2}).Control(); target != 1 || interval != 2 {
		t.Errorf("given ones %v and %v", target, interval)
	}
}
