package topology

import (
	"fmt"
	"math/big"
	"time"
)

// Limits of a queue.
const (
	maxQueueTime  = 10 * time.Second
	maxQueueBytes = 1 << 30
	maxOutages    = 64
)

// frameHeader is that of an Ethernet frame, in bytes.
const frameHeader = 14

// checkSchedule reports what is wrong with the traces, the queue and the outages of a shape. mtu is the link's.
func (p *problems) checkSchedule(s *Shape, mtu int, at func(key string) string, what string) {
	p.checkRateTrace(s, at, what)
	p.checkQueue(s, mtu, at, what)
	p.checkLossTrace(s, at, what)
	p.checkOutages(s.Outages, at("outages"), what)
}

func (p *problems) checkRateTrace(s *Shape, at func(key string) string, what string) {
	bad := func(element, format string, args ...any) { p.add(BadValue, element, what+": "+format, args...) }
	if err := checkFast(s.Rate); err != nil {
		bad(at("rate"), "rate %v %v", s.Rate, err)
	}
	if len(s.RateTrace) == 0 {
		return
	}
	element := at("rate_trace")
	if s.Rate > 0 {
		bad(element, "rate and rate_trace are two ways to give a rate; give one")
	}
	if len(s.RateTrace) > maxTrace {
		bad(element, "rate_trace has %d steps, more than %d", len(s.RateTrace), maxTrace)
		return
	}
	length, most := time.Duration(0), Rate(0)
	for i, step := range s.RateTrace {
		if step.Length < minStep || step.Length > maxTime {
			bad(fmt.Sprintf("%s[%d]", element, i), "rate_trace: a step of %v is outside %v to %v", step.Length, minStep, maxTime)
			return
		}
		if length += step.Length; length > maxTime {
			bad(element, "rate_trace is longer than %v", maxTime)
			return
		}
		if err := checkFast(step.Rate); err != nil {
			bad(fmt.Sprintf("%s[%d]", element, i), "rate_trace: %v %v", step.Rate, err)
			return
		}
		most = max(most, step.Rate)
	}
	if most == 0 {
		bad(element, "rate_trace is 0 all the time; nothing would ever pass")
	}
}

func (p *problems) checkQueue(s *Shape, mtu int, at func(key string) string, what string) {
	q := s.Queue
	if q == (Queue{}) {
		return
	}
	bad := func(key, format string, args ...any) {
		p.add(BadValue, at("queue"+key), what+": queue: "+format, args...)
	}
	if !p.oneOf(at("queue.kind"), what+": queue: kind", q.Kind, []string{DropTail, CoDel}, true) {
		return
	}
	if s.Rate == 0 && len(s.RateTrace) == 0 {
		bad("", "a queue holds what waits for the rate, and there is none; give a rate")
	}
	target, interval := q.Control()
	switch {
	case q.Bytes > 0 && q.Time > 0:
		bad(".time", "bytes and time are two ways to give its size; give one")
	case q.Bytes > 0 && (q.Bytes < uint64(mtu+frameHeader) || q.Bytes > maxQueueBytes):
		bad(".bytes", "%s is outside %dB (one packet of the link's MTU) to %s", formatBytes(q.Bytes), mtu+frameHeader, formatBytes(maxQueueBytes))
	case q.Time < 0 || q.Time > maxQueueTime:
		bad(".time", "%v is outside 0s to %v", q.Time, maxQueueTime)
	case q.Kind == CoDel && q.Time > 0 && q.Time <= target:
		bad(".time", "a queue of %v never stands longer than CoDel's target of %v; give more, or drop-tail", q.Time, target)
	}
	for _, d := range []struct {
		key   string
		value time.Duration
	}{{"target", q.Target}, {"interval", q.Interval}} {
		switch {
		case d.value != 0 && q.Kind != CoDel:
			bad("."+d.key, "only a codel queue has one; give kind: codel")
		case d.value < 0 || d.value > maxQueueTime:
			bad("."+d.key, "%v is outside 0s to %v", d.value, maxQueueTime)
		}
	}
	if q.Kind == CoDel && target >= interval {
		bad(".target", "target %v is not below the interval of %v", target, interval)
	}
}

func (p *problems) checkLossTrace(s *Shape, at func(key string) string, what string) {
	if len(s.LossTrace) == 0 {
		return
	}
	element := at("loss_trace")
	bad := func(element, format string, args ...any) { p.add(BadValue, element, what+": "+format, args...) }
	if s.Loss > 0 || s.GilbertElliott != (GilbertElliott{}) {
		bad(element, "loss_trace, loss and gilbert_elliott are ways to lose packets; give one")
	}
	if len(s.LossTrace) > maxTrace {
		bad(element, "loss_trace has %d numbers, more than %d", len(s.LossTrace), maxTrace)
		return
	}
	for i, n := range s.LossTrace {
		if n < 0 || n > maxRun || n == 0 && i > 0 {
			bad(fmt.Sprintf("%s[%d]", element, i), "loss_trace: %d packets are outside 1 to %d; only the first number may be 0", n, maxRun)
			return
		}
	}
	switch lost, all := lostOf(s.LossTrace); lost {
	case 0:
		bad(element, "loss_trace loses nothing; its numbers are packets that pass, that are lost, that pass …")
	case all:
		bad(element, "loss_trace loses everything; give loss: 100%%")
	}
}

func (p *problems) checkOutages(outages []Outage, element, what string) {
	if len(outages) > maxOutages {
		p.add(BadValue, element, "%s: %d outages are more than %d", what, len(outages), maxOutages)
		return
	}
	covered := new(big.Rat)
	for i, o := range outages {
		at := func(key string) string { return fmt.Sprintf("%s[%d].%s", element, i, key) }
		switch {
		case o.Start < 0 || o.Start > maxTime:
			p.add(BadValue, at("start"), "%s: outage: start %v is outside 0s to %v", what, o.Start, maxTime)
			return
		case o.Length <= 0 || o.Length > maxTime:
			p.add(BadValue, at("length"), "%s: outage: length %v is outside 1ns to %v", what, o.Length, maxTime)
			return
		case o.Every < 0 || o.Every > maxTime:
			p.add(BadValue, at("every"), "%s: outage: every %v is outside 0s to %v", what, o.Every, maxTime)
			return
		case o.Every > 0 && o.Length >= o.Every:
			p.add(BadValue, at("every"), "%s: outage of %v every %v: the next begins before it ends, and nothing ever passes again", what, o.Length, o.Every)
			return
		}
		for j, other := range outages[:i] {
			if o.overlaps(other) {
				p.add(BadValue, fmt.Sprintf("%s[%d]", element, i), "%s: outage %v overlaps outage number %d (%v)", what, o, j+1, other)
				return
			}
		}
		if o.Every > 0 {
			covered.Add(covered, big.NewRat(int64(o.Length), int64(o.Every)))
		}
	}
	if covered.Cmp(big.NewRat(1, 1)) >= 0 {
		p.add(BadValue, element, "%s: the outages leave no time in which anything passes", what)
	}
}

// overlaps says whether there is a moment that is in both.
func (o Outage) overlaps(other Outage) bool {
	switch {
	case o.Every == 0 && other.Every == 0:
		return o.Start < other.Start+other.Length && other.Start < o.Start+o.Length
	case o.Every == 0:
		return other.overlaps(o)
	case other.Every == 0:
		// Of those of o, the last that begins before the other ends.
		n := (other.Start + other.Length - 1 - o.Start) / o.Every
		return other.Start+other.Length > o.Start && o.Start+n*o.Every+o.Length > other.Start
	}
	// The distances from a start of one to a start of the other are all that are equal modulo the greatest common divisor.
	every := new(big.Int).GCD(nil, nil, big.NewInt(int64(o.Every)), big.NewInt(int64(other.Every))).Int64()
	after := (int64(o.Start-other.Start)%every + every) % every
	return after < int64(other.Length) || every-after < int64(o.Length)
}
