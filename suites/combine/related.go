package combine

import (
	"bytes"
	"fmt"
	"math/bits"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// but is the sum of all secrets but one.
func but(which int, s []source) []byte {
	sum := make([]byte, 32)
	for i := range s {
		if i != which {
			sum = xor(sum, s[i].secret)
		}
	}
	return sum
}

// relations: the secrets are uniform one by one, and the adversary knows their sum.
func relations() {
	constants := [][]byte{
		append(make([]byte, 31), 1),
		bytes.Repeat([]byte{0xff}, 32),
		draws(10)(32),
	}
	It("does not see that two or three secrets sum up to a constant, which is then the key: xor", func() {
		for _, n := range numbers() {
			draw := draws(11, byte(n))
			for _, constant := range constants {
				for range 1000 {
					s := related(draw, n, constant)
					Expect(bytes.Equal(mustCombine("xor", s), constant)).To(BeTrue(), "of %d", n)
				}
			}
		}
	})
	It("makes a uniform key of two or three secrets that sum up to a constant: hardened", func() {
		for _, n := range numbers() {
			draw := draws(13, byte(n))
			known := constants
			if n > 2 { // of two this is equality, which is refused
				known = append([][]byte{make([]byte, 32)}, known...)
			}
			for _, constant := range known {
				By(fmt.Sprintf("%d sources, constant %x", n, constant))
				var keys tally
				for range samples {
					keys.add(mustCombine("hardened", related(draw, n, constant)))
				}
				keys.expectUniform("key")
			}
		}
	})
}

// related gives sources with secrets of which each is uniform and the sum is a constant.
func related(draw func(int) []byte, n int, constant []byte) []source {
	s := bare(draw, n)
	s[n-1].secret = xor(but(n-1, s), constant)
	return s
}

// chosen: one source gives its secret last and knows those of all others.
func chosen() {
	It("lets whichever of two or three sources gives its secret last choose the key: xor", func() {
		for _, n := range numbers() {
			draw := draws(15, byte(n))
			for last := range n {
				for range 1000 {
					target := draw(32)
					s := bare(draw, n)
					s[last].secret = xor(but(last, s), target)
					Expect(bytes.Equal(mustCombine("xor", s), target)).To(BeTrue(), "source %d of %d", last, n)
				}
			}
		}
	})
	It("lets none of two or three sources choose the key by giving its secret last: hardened", func() {
		for _, n := range numbers() {
			draw := draws(16, byte(n))
			for last := range n {
				By(fmt.Sprintf("source %d of %d", last, n))
				var wrong tally
				for range samples {
					target := draw(32)
					s := bare(draw, n)
					s[last].secret = xor(but(last, s), target)
					wrong.add(xor(mustCombine("hardened", s), target))
				}
				wrong.expectUniform("difference between key and target")
			}
		}
	})

	// With 2^n attempts about n bits can be set: that is all that HKDF leaves to whoever gives his secret last.
	It("leaves to the source that gives its secret last nothing but attempts: hardened", func() {
		draw := draws(18)
		s := example(19, 2)
		best := 0
		for range 1 << 12 {
			s[1].secret = draw(32)
			best = max(best, leadingZeros(mustCombine("hardened", s)))
		}
		// Of 2^12 uniform keys none has 8 zeros with a probability of one in 9 million, and one has 32 in a million.
		Expect(best).To(And(BeNumerically(">=", 8), BeNumerically("<", 32)))
	})
}

func leadingZeros(b []byte) (n int) {
	for _, v := range b {
		n += bits.LeadingZeros8(v)
		if v != 0 {
			break
		}
	}
	return n
}
