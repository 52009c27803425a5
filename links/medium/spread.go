package medium

import (
	"math"
	"math/bits"
	"time"

	"pqlab/topology"
)

// points is how many values stand for a distribution.
const points = 4096

// Deviations are equally likely values of the distribution of a shape's delay, with mean 0 and standard deviation 1. A
// tail that would be rarer than one of 4096 values is no part of it.
func Deviations(s topology.Shape) []float64 {
	switch {
	case len(s.Table) > 0:
		return standardize(s.Table)
	case s.Distribution == "uniform":
		return standardize(quantiles(points, func(p float64) float64 { return p }))
	case s.Distribution == "pareto":
		return standardize(quantiles(points, pareto))
	case s.Distribution == "paretonormal":
		// The sum of both, three parts to one: each quantile of the one with one of the other that has nothing to do with it.
		values := standardize(quantiles(points, pareto))
		light := standardize(quantiles(points, gauss))
		for i := range values {
			values[i] = 0.75*values[i] + 0.25*light[bits.Reverse16(uint16(i))/(1<<16/points)]
		}
		return standardize(values)
	}
	return standardize(quantiles(points, gauss))
}

// variations are what a shape's jitter adds to its delay; nil if it has none.
func variations(s topology.Shape) []time.Duration {
	if s.Jitter == 0 {
		return nil
	}
	var out []time.Duration
	for _, v := range Deviations(s) {
		out = append(out, time.Duration(math.Round(v*float64(s.Jitter))))
	}
	return out
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
