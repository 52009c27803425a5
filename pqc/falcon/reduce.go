package falcon

import (
	"math"
	"math/bits"
)

// Babai's reduction of (F, G) by (f, g) at each depth of the NTRU solver (Falcon spec 3.8.2, algorithm 7): of the quotient
// k = (F·adj(f) + G·adj(g))/(f·adj(f) + g·adj(g)) the highest bits are computed in floating point, and k·(f, g) is
// subtracted, again and again until nothing is left of k. All is done by the lengths that numbers may have, never by those
// that they have.
//
// At the greater depths some f and g, about one of twelve pairs at degree 1024, have values of so different a size at the
// roots that float64 cannot divide by them: k grows, and they are given up. To give up the same ones as the reference
// implementation, and so to make the same keys of the same seeds, all that is done in floating point is done with the same
// bits and in the same order: these are its schedule and its limits, in limbs of 31 bits, which is not how the integers are
// kept here.

const (
	limb = 31
	// windowLimbs is how many limbs, the highest, are converted to floating point.
	windowLimbs = 10
	// quotientStep is how many bits F and G lose at a time.
	quotientStep = 25
	// A coefficient of k must be less than 2^quotientBits - 1.
	quotientBits = 31
	// longDivision is the greatest number of coefficients for which k·f is computed term by term.
	longDivision = 16
)

// reducer is the part of a solver that reduces.
type reducer struct {
	k      []int64
	floats [5][]fpr

	// For products by transform: f and g, transformed, times R, modulo each of the first primes.
	rings  []ring
	fg     [2][][]uint64
	values [2][]uint64

	// For products term by term.
	shifted, factors, excess []uint64

	terms []uint64 // k·f
}

func (s *solver) allocateReducer() {
	n := s.size(0)
	s.k = make([]int64, n)
	for i := range s.floats {
		s.floats[i] = make([]fpr, n)
	}
	for i := range s.values {
		s.values[i] = make([]uint64, n)
	}
	rings, terms, words := 1, n, 0
	for depth := range s.logn {
		if s.transforms(depth) {
			rings = max(rings, s.quotientWords(depth))
			terms = max(terms, s.size(depth)*s.quotientWords(depth))
		} else {
			words = max(words, wordsFor(s.largeBits(depth)))
		}
	}
	s.rings = make([]ring, rings)
	for i := range s.rings {
		s.rings[i].roots = make([]uint64, n)
		for of := range s.fg {
			s.fg[of] = append(s.fg[of], make([]uint64, n))
		}
	}
	s.terms = make([]uint64, terms)
	s.shifted, s.factors = make([]uint64, longDivision*words), make([]uint64, 2*longDivision)
	s.excess = make([]uint64, words)
}

func (r *reducer) wipe() {
	clear(r.k)
	for _, x := range r.floats {
		clear(x)
	}
	for _, x := range r.values {
		clear(x)
	}
	for _, of := range r.fg {
		for _, x := range of {
			clear(x)
		}
	}
	clear(r.shifted)
	clear(r.factors)
	clear(r.excess)
	clear(r.terms)
}

// transforms says how k·f is computed at a depth.
func (s *solver) transforms(depth int) bool { return depth == 0 || s.size(depth) > longDivision }

// quotientWords is the number of words, and of primes, for k·f, which is no longer than F.
func (s *solver) quotientWords(depth int) int {
	return wordsFor(min(quotientBits+mostBits(depth)+moreSmall+s.logn-depth, s.largeBits(depth)+1))
}

// keep takes f and g, transformed modulo prime j, for the reduction at that depth.
func (s *solver) keep(depth, j int, f, g []uint64) {
	if !s.transforms(depth) || j >= s.quotientWords(depth) {
		return
	}
	m := &s.rings[j].field
	for of, x := range [][]uint64{f, g} {
		kept := s.fg[of][j]
		for i, v := range x {
			kept[i] = m.montgomery(v)
		}
	}
}

// reduce makes F and G short, of reducedBits(depth) bits. It reports whether that went well.
func (s *solver) reduce(depth int) bool {
	n, words := s.size(depth), smallWords(depth)
	small, F, G := s.small[depth], s.large[:n*s.stride], s.large[n*s.stride:]
	from, count := window(lengths[depth].small)
	f, g, inverse := s.floats[0][:n], s.floats[1][:n], s.floats[2][:n]
	toFloat(f, small, words, words, from, count)
	toFloat(g, small[n*words:], words, words, from, count)
	fft(f)
	fft(g)
	polyInvNorm(inverse, f, g)

	// F and G have limbs limbs, and at most most bits; of k, the bits from scale are next.
	limbs := lengths[depth].large
	most := limb * limbs
	k, t := s.floats[3][:n], s.floats[4][:n]
	for scale := most - leastBits(depth); ; scale = max(scale-quotientStep, 0) {
		used := min(s.stride, (limb*limbs+63)/64)
		fromLarge, count := window(limbs)
		toFloat(k, F, used, s.stride, fromLarge, count)
		toFloat(t, G, used, s.stride, fromLarge, count)
		fft(k)
		fft(t)
		polyAddMulAdjoints(k, k, t, f, g)
		polyMulReal(k, inverse)
		ifft(k)
		if !s.quotient(k, fromLarge-from-scale) {
			return false
		}
		if s.transforms(depth) {
			s.subtractTransformed(depth, scale, used)
		} else {
			s.subtractTerms(depth, scale, used)
		}
		if scale == 0 {
			return true
		}
		if next := scale + mostBits(depth) + moreReduced; next < most {
			most = next
			if limb*(limbs-1) >= most {
				limbs--
			}
		}
	}
}

// window is the position of the highest of limbs, those to convert, in bits, and their number.
func window(limbs int) (from, count int) {
	count = min(limbs, windowLimbs)
	return limb * (limbs - count), count
}

// toFloat sets t to count limbs, from bit from on, of numbers in two's complement of words words, stride words apart.
func toFloat(t []fpr, x []uint64, words, stride, from, count int) {
	radix := fprConst(1 << limb)
	for i := range t {
		number := x[i*stride:][:words]
		// The absolute value: else a small negative number would be the difference of two great ones.
		top := sign(number)
		carry := top & 1
		sum, unit := fprOf(0), fprConst(1)
		for at := from; at < from+limb*count; at += limb {
			low, high := top, top
			if at/64 < words {
				low = number[at/64]
			}
			if at/64+1 < words {
				high = number[at/64+1]
			}
			word := low>>(at%64) | high<<1<<(63-at%64)
			word = (word^top)&(1<<limb-1) + carry
			carry = word >> limb
			sum = sum.add(fprOf(int64(word & (1<<limb - 1))).mul(unit))
			unit = unit.mul(radix)
		}
		t[i] = sum.mul(fprOf(1 - 2*int64(top&1)))
	}
}

// quotient rounds x·2^exponent to integers, k. It reports whether they are within bounds.
func (s *solver) quotient(x []fpr, exponent int) bool {
	const bound = 1<<quotientBits - 1
	unit, most, least := fprConst(math.Ldexp(1, exponent)), fprConst(bound), fprConst(-bound)
	for i, v := range x {
		v = v.mul(unit)
		if !v.lt(most) || !least.lt(v) { // f and g are thrown away then
			return false
		}
		s.k[i] = v.rint()
	}
	return true
}

// subtractTransformed subtracts k·f·2^scale from F and k·g·2^scale from G, in the used words of their coefficients.
func (s *solver) subtractTransformed(depth, scale, used int) {
	n, words := s.size(depth), s.quotientWords(depth)
	k, t := s.values[0][:n], s.values[1][:n]
	terms := s.terms[:n*words]
	for of := range 2 {
		for j := range words {
			m := &s.rings[j]
			for i := range k {
				k[i] = m.reduceInt(s.k[i])
			}
			m.transform(k)
			for i, x := range s.fg[of][j][:n] {
				t[i] = m.mul(k[i], x)
			}
			m.transformBack(t, m.inverseOf(n))
			for i, x := range t {
				terms[i*words+j] = x
			}
		}
		rebuild(terms, words, s.product)
		into := s.large[of*n*s.stride:]
		for i := range n {
			subShifted(into[i*s.stride:][:used], terms[i*words:][:words], scale)
		}
	}
}

// subtractTerms does the same without a transform. The numbers are words that stand for all of their bits above scale: the
// words of f, of f·2^(scale mod 64), are extended by their sign.
func (s *solver) subtractTerms(depth, scale, used int) {
	n, words := s.size(depth), smallWords(depth)
	skip, count := scale/64, uint(scale%64)
	length := used - skip
	// factors[n+i] = bias - k[i] and factors[i] = bias + k[i], what goes round as x^n = -1: no signs in the inner loop.
	const bias = 1 << quotientBits
	factors := s.factors[:2*n]
	for i, k := range s.k[:n] {
		factors[n+i], factors[i] = uint64(bias-k), uint64(bias+k)
	}
	excess, shifted := s.excess[:length], s.shifted[:n*length]
	for of := range 2 {
		// Word by word, and in each the coefficients from the last to the first.
		small := s.small[depth][of*n*words:]
		for j := range n {
			number := small[j*words:][:words]
			low, top := uint64(0), sign(number)
			for w := range length {
				word := top
				if w < words {
					word = number[w]
				}
				shifted[w*n+n-1-j] = word<<count | low
				low = word >> (64 - count)
			}
		}
		// What the bias adds to each coefficient: bias times the sum of all.
		var carry, last, borrow uint64
		for w := range excess {
			sum, high := carry, uint64(0)
			for _, word := range shifted[w*n:][:n] {
				var c uint64
				sum, c = bits.Add64(sum, word, 0)
				high += c
			}
			carry = high
			excess[w], borrow = bits.Sub64(0, sum<<quotientBits|last>>(64-quotientBits), borrow)
			last = sum
		}
		into := s.large[of*n*s.stride:]
		for i := range n {
			number, by := into[i*s.stride:][skip:used], factors[i+1:]
			var carry uint64
			for w := range number {
				row := shifted[w*n:][:n]
				by := by[:len(row)]
				low, c := bits.Add64(number[w], carry, 0)
				high := c
				low, c = bits.Add64(low, excess[w], 0)
				high += c
				for j, x := range row {
					h, l := bits.Mul64(x, by[j])
					low, c = bits.Add64(low, l, 0)
					high, _ = bits.Add64(high, h, c)
				}
				number[w], carry = low, high
			}
		}
	}
}
