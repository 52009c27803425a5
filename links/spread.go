package links

import (
	"math"

	"pqlab/links/medium"
	"pqlab/topology"
)

// spread is how netem varies a delay: it adds a value of a table, drawn with equal probability, times sigma, by scale.
type spread struct {
	table []int16
	sigma int64   // nanoseconds; 0: the delay does not vary
	most  float64 // the farthest from the mean, in standard deviations
}

// scale is one sigma in a table (NETEM_DIST_SCALE in include/uapi/linux/pkt_sched.h).
const scale = 8192

// newSpread makes the table of the shape's distribution. Its mean is 0 and its standard deviation the jitter: exactly
// those of the table, of which a tail that would be rarer than a point is no part.
func newSpread(s topology.Shape) spread {
	if s.Jitter == 0 {
		return spread{}
	}
	values := medium.Deviations(s)
	var most float64
	for _, v := range values {
		most = max(most, math.Abs(v))
	}
	// A table holds ±4 sigma. A wider one is made narrow, and sigma larger.
	stretch := max(1, math.Ceil(most*scale/math.MaxInt16))
	out := spread{make([]int16, len(values)), int64(math.Round(float64(s.Jitter) * stretch)), most}
	for i, v := range values {
		out.table[i] = int16(math.Round(v * scale / stretch))
	}
	return out
}

// fits says whether netem takes it: the kernel caps sigma.
func (s spread) fits() bool { return s.sigma <= math.MaxInt32 }
