package wire

import (
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Lateness is by how much a wire was late in giving out packets that the medium had held back: when the packet was
// written, less when it was due, and for how long it may have waited in the interface because the wire's thread was not
// run. It is not known how long it takes to wake a thread that sleeps with nothing on its way. Percentiles have two digits
// and at least a microsecond.
type Lateness struct {
	Packets       int64
	P50, P99, Max time.Duration
}

// lateness gathers it.
type lateness struct{ h *hdrhistogram.Histogram }

const latest = 10 * time.Second

func newLateness() lateness { return lateness{hdrhistogram.New(1, latest.Microseconds(), 2)} }

func (l lateness) add(d time.Duration) { l.h.RecordValue(max(1, min(d, latest).Microseconds())) }

func (l lateness) snapshot() Lateness {
	at := func(percentile float64) time.Duration {
		return time.Duration(l.h.ValueAtQuantile(percentile)) * time.Microsecond
	}
	return Lateness{Packets: l.h.TotalCount(), P50: at(50), P99: at(99), Max: time.Duration(l.h.Max()) * time.Microsecond}
}

// awake is the time in which a thread ought to look after its interfaces: it stands still while the thread sleeps, and goes
// on when that has lasted for as long as it was meant to.
type awake struct{ rest time.Duration }

func (a *awake) at(now time.Duration) time.Duration { return now - a.rest }

// slept says that the thread has slept from one time to another, to be woken at until or when there is something to do.
func (a *awake) slept(from, to, until time.Duration) { a.rest += min(to, until) - from }

const never = time.Duration(1<<63 - 1)

// attention is what an interface gets of the thread, in its awake time. Packets of which nobody knows when they came have
// waited since it was last seen empty, or for a shorter time: one that found others there waits for them too, but that is
// the sender's doing and not the thread's. So the longest time without a look is what is counted.
type attention struct {
	since time.Duration // last look
	worst time.Duration // between two looks since it was seen empty
}

// empty notes that there was nothing to read.
func (a *attention) empty(at time.Duration) { *a = attention{since: at} }

// look notes that something is being read.
func (a *attention) look(at time.Duration) { a.worst, a.since = a.waited(at), at }

// waited is for how long what is read now may have waited.
func (a *attention) waited(at time.Duration) time.Duration { return max(a.worst, at-a.since) }
