package traffic

import (
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// histogram of durations from 1 ns to 100 s within 0.1 %; longer ones count as 100 s.
type histogram struct{ h *hdrhistogram.Histogram }

const longest = int64(100 * time.Second)

func newHistogram() histogram { return histogram{hdrhistogram.New(1, longest, 3)} }

func (h histogram) record(d time.Duration, n int64) {
	// Cannot fail: the value is within the histogram's range.
	_ = h.h.RecordValues(min(max(int64(d), 0), longest), n)
}

func (h histogram) latency() *Latency {
	if h.h.TotalCount() == 0 {
		return nil
	}
	us := func(ns int64) float64 { return float64(ns) / 1e3 }
	return &Latency{
		P50:   us(h.h.ValueAtPercentile(50)),
		P90:   us(h.h.ValueAtPercentile(90)),
		P99:   us(h.h.ValueAtPercentile(99)),
		Max:   us(h.h.Max()),
		Mean:  h.h.Mean() / 1e3,
		Count: h.h.TotalCount(),
	}
}

const binWidth = 100 * time.Millisecond

// maxBins bounds what a sink remembers: 28 hours.
const maxBins = 1 << 20

// bins counts bytes per 100 ms from its first arrival on.
type bins struct {
	bytes       []uint64
	first, last Instant
	total       uint64
}

func (b *bins) add(now Instant, bytes uint64) {
	if b.bytes == nil {
		b.first = now
		b.bytes = make([]uint64, 1, 1024)
	}
	b.last = max(b.last, now)
	b.total += bytes
	i := int(max(now-b.first, 0) / Instant(binWidth))
	if i >= maxBins {
		return
	}
	for i >= len(b.bytes) {
		b.bytes = append(b.bytes, 0)
	}
	b.bytes[i] += bytes
}

func (b *bins) result() []Bin {
	out := make([]Bin, len(b.bytes))
	for i, n := range b.bytes {
		out[i] = Bin{At: int64(i) * binWidth.Milliseconds(), Bits: n * 8}
	}
	return out
}

// fill puts rate, time and bins into a result. The duration is that of the schedule, or of the arrivals where these took
// longer, so that neither a short flow's missing last interval nor a queue's drain makes the rate look better.
func (b *bins) fill(r *Result, s Sent) {
	r.Bytes = b.total
	r.Start = s.Start
	if b.bytes != nil {
		r.Start = b.first
	}
	r.Duration = max(b.last.Sub(b.first), s.End.Sub(s.Start), 0)
	if r.Duration > 0 {
		r.BitsPerSecond = float64(b.total) * 8 / r.Duration.Seconds()
	}
	r.Bins = b.result()
}
