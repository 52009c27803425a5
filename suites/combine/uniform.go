package combine

import (
	"fmt"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// samples that a tally takes.
const samples = 20000

// Of a uniform byte Pearson's statistic has 255 degrees of freedom. By Wilson and Hilferty's approximation it is over this
// limit, five standard deviations away, once in 3.5 million times. The specs look at less than 1500 bytes: for a combiner
// that is as good as it can be, fewer than one seed in 2000 would make any of them fail. The seeds are fixed.
const limit = 384.5

// tally counts, for each byte of strings of one length, how often it has each value.
type tally [][256]int

func (t *tally) add(b []byte) {
	if *t == nil {
		*t = make(tally, len(b))
	}
	for i, v := range b {
		(*t)[i][v]++
	}
}

// expectUniform says that every byte is one of uniform strings. Its name tells which they are.
func (t tally) expectUniform(name string) {
	GinkgoHelper()
	Expect(t).NotTo(BeEmpty())
	for i := range t {
		Expect(chiSquare(t[i])).To(BeNumerically("<", limit), fmt.Sprintf("byte %d of the %s", i, name))
	}
}

// chiSquare is Pearson's statistic of counts against the uniform distribution.
func chiSquare(counts [256]int) (x float64) {
	total := 0
	for _, n := range counts {
		total += n
	}
	expected := float64(total) / 256
	for _, n := range counts {
		d := float64(n) - expected
		x += d * d / expected
	}
	return x
}
