package traffic

import "math"

// Likely says whether k of n, each with probability p, is within the interval that all but a share miss of such draws are
// in: half of that on either side. It is exact.
func Likely(k, n int, p, miss float64) bool {
	return atMost(k, n, p) > miss/2 && atMost(n-k, n, 1-p) > miss/2
}

// atMost is the probability of at most k of n.
func atMost(k, n int, p float64) (sum float64) {
	switch {
	case k >= n || p <= 0:
		return 1
	case p >= 1:
		return 0
	}
	whole, _ := math.Lgamma(float64(n + 1))
	for i := range k + 1 {
		in, _ := math.Lgamma(float64(i + 1))
		out, _ := math.Lgamma(float64(n - i + 1))
		sum += math.Exp(whole - in - out + float64(i)*math.Log(p) + float64(n-i)*math.Log1p(-p))
	}
	return sum
}

// Interval is that of the probabilities with which k of n is Likely: the exact confidence interval of a share (Clopper and
// Pearson 1934) that misses it no more often than that.
func Interval(k, n int, miss float64) (low, high float64) {
	if n == 0 {
		return 0, 1
	}
	seen := float64(k) / float64(n)
	edge := func(outside float64) float64 {
		if Likely(k, n, outside, miss) {
			return outside
		}
		inside := seen
		for range 40 {
			if middle := (inside + outside) / 2; Likely(k, n, middle, miss) {
				inside = middle
			} else {
				outside = middle
			}
		}
		return inside
	}
	return edge(0), edge(1)
}
