// Package samples compares measured times of which some never came to an end.
package samples

import (
	"math"
	"slices"
)

// Never is the time of what had not ended when nobody waited any longer: more than any other.
func Never() float64 { return math.Inf(1) }

// Quantile of values in any order, q from 0 to 1: an observed value, or the mean of two neighbours where q falls between
// them (definition 2 of Hyndman and Fan, The American Statistician 50, 1996). It is Never where one of the two is, and NaN
// of no values.
func Quantile(values []float64, q float64) float64 {
	n := len(values)
	if n == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	at := q * float64(n)
	i := int(math.Ceil(at))
	if at == math.Floor(at) && i > 0 && i < n {
		return (sorted[i-1] + sorted[i]) / 2
	}
	return sorted[max(0, min(i, n)-1)]
}

// Difference is by how much one set of times lies above another.
type Difference struct {
	Shift     float64 // the median of all differences between a value of the one and a value of the other
	Low, High float64 // confidence interval of Shift; infinite where there are too few values for one
}

// Sign is 1 where the first set is above the other, -1 where it is below, and 0 where no difference was seen: where 0 is in
// the confidence interval.
func (d Difference) Sign() int {
	switch {
	case d.Low > 0:
		return 1
	case d.High < 0:
		return -1
	}
	return 0
}

// Compare says by how much a is above b: the estimate of Hodges and Lehmann, with the interval that goes with the rank test
// of Mann and Whitney (Hollander and Wolfe, Nonparametric Statistical Methods, section 4.3). It assumes nothing of the
// distributions' form, and a time that is Never counts as what it is: the longest. Without ties the interval holds the
// shift with at least the confidence, from 0 to 1.
func Compare(a, b []float64, confidence float64) Difference {
	differences := make([]float64, 0, len(a)*len(b))
	for _, x := range a {
		for _, y := range b {
			if x == y { // Never less Never too
				differences = append(differences, 0)
			} else {
				differences = append(differences, x-y)
			}
		}
	}
	slices.Sort(differences)
	out := Difference{Shift: Quantile(differences, 0.5), Low: math.Inf(-1), High: math.Inf(1)}
	if c := critical(len(a), len(b), (1-confidence)/2); c > 0 {
		out.Low, out.High = differences[c-1], differences[len(differences)-c]
	}
	return out
}

// exactUpTo is the product of sizes up to which the statistic's distribution is counted out.
const exactUpTo = 2500

// critical is the largest c for which Mann and Whitney's U is below c with no more than the given probability, if both sets
// of n and m values are of one distribution.
func critical(n, m int, probability float64) int {
	if n*m > exactUpTo {
		mean, deviation := float64(n*m)/2, math.Sqrt(float64(n*m*(n+m+1))/12)
		return max(0, int(math.Floor(mean-math.Sqrt2*math.Erfinv(1-2*probability)*deviation)))
	}
	ways := waysOf(n, m)
	all := 0.0
	for _, w := range ways {
		all += w
	}
	below := 0.0
	for c, w := range ways {
		if below += w; below > probability*all {
			return c
		}
	}
	return 0 // of no values
}

// waysOf counts, for each value of U, the orders of n and m values that have it (Mann and Whitney, 1947): the largest value is
// of the first set and has all m below it, or is of the second.
func waysOf(n, m int) []float64 {
	row := make([][]float64, m+1) // by how many of the second set, for the number of the first that was reached
	for j := range row {
		row[j] = []float64{1}
	}
	for range n {
		next := make([][]float64, m+1)
		next[0] = []float64{1}
		for j := 1; j <= m; j++ {
			w := make([]float64, len(row[j])+j)
			for u, k := range row[j] {
				w[u+j] += k
			}
			for u, k := range next[j-1] {
				w[u] += k
			}
			next[j] = w
		}
		row = next
	}
	return row[m]
}
