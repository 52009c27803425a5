package topology

import (
	"cmp"
	"time"
)

// filled is the tolerance with its defaults.
func (t Tolerance) filled() Tolerance {
	return Tolerance{
		Rate: cmp.Or(t.Rate, 0.02), Delay: cmp.Or(t.Delay, time.Millisecond), Jitter: cmp.Or(t.Jitter, time.Millisecond),
		Tail: cmp.Or(t.Tail, 10*time.Millisecond), Confidence: cmp.Or(t.Confidence, 0.9999),
	}
}

func (p *planner) checkTolerance() {
	t := p.t.Tolerance
	if t == (Tolerance{}) {
		return
	}
	if !p.t.Verify {
		p.add(BadValue, "tolerance", "tolerance is of what verify measures, and it measures nothing; give verify: true")
	}
	for _, share := range []struct {
		key   string
		value float64
	}{{"rate", t.Rate}, {"confidence", t.Confidence}} {
		if !(share.value >= 0 && share.value < 1) {
			p.add(BadValue, "tolerance."+share.key, "tolerance: %s %v is outside 0 to less than 1", share.key, share.value)
		}
	}
	p.checkTime("tolerance.delay", "tolerance: delay", t.Delay, 0, time.Hour)
	p.checkTime("tolerance.jitter", "tolerance: jitter", t.Jitter, 0, time.Hour)
	p.checkTime("tolerance.tail", "tolerance: tail", t.Tail, 0, time.Hour)
}
