package medium

import (
	"math"
	mathbits "math/bits"
	"time"

	"pqlab/topology"
)

// pace says how long a packet takes to be sent. The zero value sends at once.
type pace struct {
	rate  topology.Rate       // constant; 0: at once
	trace []topology.RateStep // in place of rate; some step passes something
	begin time.Duration       // of the trace
	lap   time.Duration       // length of all steps

	last time.Duration // end of the last packet
	rest uint64        // of which the exact end is later by rest/rate nanoseconds
}

func newPace(s topology.Shape, begin time.Duration) pace {
	r := pace{rate: s.Rate, trace: s.RateTrace, begin: begin}
	for _, step := range s.RateTrace {
		r.lap += step.Length
	}
	return r
}

// none says whether the pace sends at once.
func (r *pace) none() bool { return r.rate == 0 && len(r.trace) == 0 }

// fastest is the highest rate that it ever has; 0: at once.
func (r *pace) fastest() topology.Rate {
	most := r.rate
	for _, s := range r.trace {
		most = max(most, s.Rate)
	}
	return most
}

// send gives the end of a packet of that many bits whose sending begins at start. Packets sent back to back have exactly
// the rate: what one's end was rounded down by, the next takes longer.
func (r *pace) send(start time.Duration, bits uint64) time.Duration {
	switch {
	case len(r.trace) > 0:
		return r.sendStepped(start, float64(bits))
	case r.rate == 0:
		return start
	}
	if start != r.last {
		r.rest = 0
	}
	hi, lo := mathbits.Mul64(bits, 1e9)
	lo, carry := mathbits.Add64(lo, r.rest, 0)
	hi += carry
	if hi >= uint64(r.rate) { // longer than a Duration
		return never
	}
	took, rest := mathbits.Div64(hi, lo, uint64(r.rate))
	if took > uint64(never-start) {
		return never
	}
	r.last, r.rest = start+time.Duration(took), rest
	return r.last
}

// never is later than anything.
const never = time.Duration(1<<63 - 1)

// sendStepped walks over the trace. It rounds up.
func (r *pace) sendStepped(start time.Duration, bits float64) time.Duration {
	i, now := r.step(start)
	took := time.Duration(0)
	for {
		step := r.trace[i]
		rate, left := float64(step.Rate), step.Length-now
		if can := rate * left.Seconds(); can < bits {
			bits -= can
		} else {
			return start + took + time.Duration(math.Ceil(bits/rate*1e9))
		}
		if took += left; took >= never-start-r.lap {
			return never
		}
		now, i = 0, (i+1)%len(r.trace)
	}
}

// step gives the step of the trace that holds at a time, and for how long it has.
func (r *pace) step(at time.Duration) (i int, since time.Duration) {
	for since = (at - r.begin) % r.lap; since >= r.trace[i].Length; i++ {
		since -= r.trace[i].Length
	}
	return i, since
}

// passed is how many bits are sent from one time to another; there is a pace.
func (r *pace) passed(from, to time.Duration) (bits float64) {
	if len(r.trace) == 0 {
		return float64(r.rate) * (to - from).Seconds()
	}
	i, since := r.step(from)
	for from < to {
		took := min(r.trace[i].Length-since, to-from)
		bits += float64(r.trace[i].Rate) * took.Seconds()
		from += took
		since, i = 0, (i+1)%len(r.trace)
	}
	return bits
}
