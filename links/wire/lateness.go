package wire

import (
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Lateness is by how much a wire was late in giving out packets that the medium had held back: when the packet was
// written, less when it was due. Percentiles have two digits and at least a microsecond.
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
