package topology

import (
	"fmt"
	"math/big"
	"strings"
	"time"
)

// Queue holds the packets of a direction that wait for its rate. The zero value is a drop-tail queue of the default size:
// 24 ms at the rate, or 0.7 of the delay if that is longer.
type Queue struct {
	Kind  string        // DropTail (the default) or CoDel
	Bytes uint64        // how much it holds at most, in bytes of Ethernet frame without checksum; 0: as Time says
	Time  time.Duration // how much it holds at most, as time at the rate (of a RateTrace, at its MeanRate); 0: as Bytes says

	Target   time.Duration // of CoDel; 0 means 5 ms
	Interval time.Duration // of CoDel; 0 means 100 ms
}

// Queue kinds.
const (
	DropTail = "drop-tail" // what finds no room is dropped
	CoDel    = "codel"     // and what has stood too long at the head of the queue: Controlled Delay, RFC 8289
)

// Control gives the target and the interval of CoDel, with the defaults of RFC 8289 (section 4).
func (q Queue) Control() (target, interval time.Duration) {
	target, interval = 5*time.Millisecond, 100*time.Millisecond
	if q.Target > 0 {
		target = q.Target
	}
	if q.Interval > 0 {
		interval = q.Interval
	}
	return target, interval
}

// String says in words what the queue is: "codel queue of 100ms".
func (q Queue) String() string {
	text := "drop-tail queue"
	if q.Kind != "" {
		text = q.Kind + " queue"
	}
	switch {
	case q.Bytes > 0:
		text += " of " + formatBytes(q.Bytes)
	case q.Time > 0:
		text += " of " + q.Time.String()
	}
	if q.Kind == CoDel && (q.Target > 0 || q.Interval > 0) {
		target, interval := q.Control()
		text += fmt.Sprintf(" (target %v, interval %v)", target, interval)
	}
	return text
}

// Outage is a time in which nothing enters a direction of a link; what has entered arrives.
type Outage struct {
	Start  time.Duration // after the shape began to hold: when the link came up, or was changed
	Length time.Duration
	Every  time.Duration // from one start to the next; 0 means once
}

// String is "2s at 10s every 1m0s".
func (o Outage) String() string {
	text := fmt.Sprintf("%v at %v", o.Length, o.Start)
	if o.Every > 0 {
		text += " every " + o.Every.String()
	}
	return text
}

// RateStep is a part of a bandwidth trace.
type RateStep struct {
	Length time.Duration // how long it lasts
	Rate   Rate          // 0: nothing passes
}

// MeanRate is the rate, or the mean of the rate trace; 0 if there is neither.
func (s Shape) MeanRate() Rate {
	if len(s.RateTrace) == 0 {
		return s.Rate
	}
	bits, length := new(big.Int), new(big.Int)
	for _, step := range s.RateTrace {
		d := big.NewInt(int64(step.Length))
		length.Add(length, d)
		bits.Add(bits, d.Mul(d, new(big.Int).SetUint64(uint64(step.Rate))))
	}
	if length.Sign() <= 0 {
		return 0
	}
	return Rate(bits.Div(bits, length).Uint64())
}

// about is a rate with the four digits that are worth reading.
func about(r Rate) Rate {
	unit := Rate(1)
	for r/unit >= 10_000 {
		unit *= 10
	}
	return r / unit * unit
}

// Scheduled says in words what befalls packets by a trace, by the clock or in a queue of their own kind, and not by
// chance: "rate trace of 3 steps in 12.5s", "outage 2s at 10s". No queueing discipline of the kernel does it.
func (s Shape) Scheduled() []string {
	var parts []string
	if n := len(s.RateTrace); n > 0 {
		length := time.Duration(0)
		for _, step := range s.RateTrace {
			length += step.Length
		}
		parts = append(parts, fmt.Sprintf("rate trace of %s in %v, mean %v", countOf(n, "step"), length, about(s.MeanRate())))
	}
	if s.Queue != (Queue{}) {
		parts = append(parts, s.Queue.String())
	}
	if len(s.LossTrace) > 0 {
		lost, all := lostOf(s.LossTrace)
		parts = append(parts, fmt.Sprintf("loss trace of %d in %s", lost, countOf(all, "packet")))
	}
	if n := len(s.Outages); n > 0 {
		const shown = 3
		texts := make([]string, 0, shown+1)
		for i, o := range s.Outages {
			if i == shown {
				texts = append(texts, fmt.Sprintf("%d more", n-shown))
				break
			}
			texts = append(texts, o.String())
		}
		parts = append(parts, "outage "+strings.Join(texts, " and "))
	}
	return parts
}

// countOf says how many there are of something whose plural ends in s.
func countOf(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// lostOf counts the packets of a loss trace.
func lostOf(trace []int) (lost, all int) {
	for i, n := range trace {
		all += n
		if i%2 == 1 {
			lost += n
		}
	}
	return lost, all
}
