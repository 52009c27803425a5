package links

import (
	"math"
	"math/bits"

	"pqlab/topology"
)

// spread is how netem varies a delay: it adds a value of a table, drawn with equal probability, times sigma, by scale.
type spread struct {
	table []int16
	sigma int64   // nanoseconds; 0: the delay does not vary
	most  float64 // the farthest from the mean, in standard deviations
}

const (
	// scale is one sigma in a table (NETEM_DIST_SCALE in include/uapi/linux/pkt_sched.h).
	scale = 8192
	// points is how many values stand for a distribution.
	points = 4096
)

// newSpread makes the table of the shape's distribution. Its mean is 0 and its standard deviation the jitter: exactly
// those of the table, of which a tail that would be rarer than a point is no part.
func newSpread(s topology.Shape) spread {
	if s.Jitter == 0 {
		return spread{}
	}
	values := standardize(deviations(s))
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

// deviations are equally likely values of the shape's distribution, of any mean and scale.
func deviations(s topology.Shape) []float64 {
	switch {
	case len(s.Table) > 0:
		return s.Table
	case s.Distribution == "uniform":
		return quantiles(points, func(p float64) float64 { return p })
	case s.Distribution == "pareto":
		return quantiles(points, pareto)
	case s.Distribution == "paretonormal":
		// The sum of both, three parts to one: each quantile of the one with one of the other that has nothing to do with it.
		values := standardize(quantiles(points, pareto))
		light := standardize(quantiles(points, gauss))
		for i := range values {
			values[i] = 0.75*values[i] + 0.25*light[bits.Reverse16(uint16(i))/(1<<16/points)]
		}
		return values
	}
	return quantiles(points, gauss)
}

// quantiles are those of the middles of n equal parts.
func quantiles(n int, at func(p float64) float64) []float64 {
	values := make([]float64, n)
	for i := range values {
		values[i] = at((float64(i) + 0.5) / float64(n))
	}
	return values
}

func gauss(p float64) float64 { return math.Sqrt2 * math.Erfinv(2*p-1) }

// pareto has the shape 3, as the distribution of that name of iproute2 has.
func pareto(p float64) float64 { return math.Pow(1-p, -1.0/3) }

// standardize shifts and scales values to mean 0 and standard deviation 1. They must not all be the same.
func standardize(values []float64) []float64 {
	var mean, square float64
	for _, v := range values {
		mean += v / float64(len(values))
	}
	for _, v := range values {
		square += (v - mean) * (v - mean) / float64(len(values))
	}
	out := make([]float64, len(values))
	for i, v := range values {
		out[i] = (v - mean) / math.Sqrt(square)
	}
	return out
}
