package falcon

import "math/bits"

// The bottom of the NTRU solver: two integers in place of polynomials (Falcon spec 3.8.2, algorithm 6, the case n = 1).

// gcdSteps is how many steps of the binary GCD are made on the ends of the numbers before the numbers are brought up to date.
const gcdSteps = 62

// gcdRounds is how often that happens: the two numbers lose at least one bit in each step.
func gcdRounds(words int) int { return (2*64*words + gcdSteps - 1) / gcdSteps }

// bezoutScratch is the number of words that bezout needs for numbers of that many words.
func bezoutScratch(words int) int { return 2*(words+2) + 2*gcdRounds(words) + words + 4 }

// bezout sets u and v so that u·x - v·y = 1 and 0 <= u <= y, and reports whether there are such: whether x and y have no
// common divisor. If not, u and v are undefined. All are of as many words; x and y must be odd, positive, and have their
// highest bit 0.
//
// It is the binary GCD, 62 steps at a time on the 62 low and the 64 high bits (T. Pornin, "Optimized Binary GCD for Modular
// Inversion", 2020, algorithm 2). The cofactors of x are kept as integers, neither halved nor reduced modulo y, and are
// brought into range at the end.
func bezout(u, v, x, y, scratch []uint64) bool {
	words, rounds := len(x), gcdRounds(len(x))
	clear(scratch)
	take := func(n int) (part []uint64) {
		part, scratch = scratch[:n], scratch[n:]
		return part
	}
	a, b := take(words+2), take(words+2)
	p, r := take(rounds), take(rounds+words+4)
	copy(a, x)
	copy(b, y)
	p[0] = 1 // 2^(62·round)·a = p·x and 2^(62·round)·b = r·x, modulo y
	for round := range rounds {
		size := min(words+2, (2*64*words-gcdSteps*round)/64+2)
		m := gcdMatrix(a[:size], b[:size])
		m.shrink(a[:size], b[:size])
		// The cofactors have 62·round bits and a sign.
		before, after := gcdSteps*round/64+1, gcdSteps*(round+1)/64+1
		if before < after {
			p[before], r[before] = sign(p[:before]), sign(r[:before])
		}
		m.grow(p[:after], r[:after])
	}
	wrong := b[0] ^ 1
	for _, word := range b[1:] {
		wrong |= word
	}

	// u = r/2^(62·rounds) modulo y, by Montgomery's reduction; the shift makes whole words of the bits.
	inverse := inverseWord(y[0])
	used, count := gcdSteps*rounds/64+1, (gcdSteps*rounds+63)/64
	top := sign(r[:used])
	for i := used; i < len(r); i++ {
		r[i] = top
	}
	shiftLeft(r, uint(64*count-gcdSteps*rounds))
	var carry uint64
	for i := range count {
		word := addMul(r[i:i+words], y, -r[i]*inverse)
		r[i+words], carry = bits.Add64(r[i+words], word, carry)
	}
	copy(u, r[count:]) // in [0, y]: no more words

	// v = (u·x - 1)/y, which has no remainder: from the low words up, all modulo 2^(64·words).
	t := r[:words]
	clear(t)
	for i := range t {
		addMul(t[i:], x[:words-i], u[i])
	}
	subSmall(t, 1)
	for i := range t {
		v[i] = -t[i] * inverse
		addMul(t[i:], y[:words-i], v[i])
	}
	negateIf(v, ^uint64(0))
	return wrong == 0
}

// sign is the word of which x, in two's complement, would have more.
func sign(x []uint64) uint64 { return uint64(int64(x[len(x)-1]) >> 63) }

// matrix is what steps of the binary GCD do: (a, b) becomes (f0·a + g0·b, f1·a + g1·b)/2^62. |f| + |g| <= 2^62 in both rows.
type matrix struct{ f0, g0, f1, g1 uint64 } // in two's complement

// gcdMatrix is that of the next gcdSteps steps; a and b are of at least two words and are not changed.
func gcdMatrix(a, b []uint64) matrix {
	// The two highest words that are not both 0, but not less than the words 1 and 0.
	var aHigh, aMid, bHigh, bMid uint64
	searching, second := ^uint64(0), uint64(0)
	short := uint64(0) // all ones if the numbers have at most 128 bits
	for i := len(a) - 1; i >= 0; i-- {
		aMid |= a[i] & second
		bMid |= b[i] & second
		second = 0
		if i > 0 {
			if i == 1 {
				short = searching
			}
			aHigh |= a[i] & searching
			bHigh |= b[i] & searching
			found := -nonzero(a[i] | b[i])
			if i == 1 {
				found = ^uint64(0)
			}
			second = searching & found
			searching &^= found
		}
	}
	// 64 bits from the highest down, but of at most 126 bits those above the low 62, so that nothing is lost between.
	shift := uint64(bits.LeadingZeros64(aHigh | bHigh))
	excess := (shift - 2) &^ uint64(int64(shift-2)>>63) & short // shift - min(shift, 2)
	shift -= excess
	aTop := aHigh<<shift | aMid>>(64-shift)
	bTop := bHigh<<shift | bMid>>(64-shift)
	const low = 1<<gcdSteps - 1
	aLow, aHigh := a[0]&low|aTop<<gcdSteps, aTop>>(64-gcdSteps)
	bLow, bHigh := b[0]&low|bTop<<gcdSteps, bTop>>(64-gcdSteps)

	f0, g0, f1, g1 := uint64(1), uint64(0), uint64(0), uint64(1)
	for range gcdSteps {
		odd := -(aLow & 1)
		_, borrow := bits.Sub64(aLow, bLow, 0)
		_, borrow = bits.Sub64(aHigh, bHigh, borrow)
		swap := odd & -borrow
		t := (aLow ^ bLow) & swap
		aLow, bLow = aLow^t, bLow^t
		t = (aHigh ^ bHigh) & swap
		aHigh, bHigh = aHigh^t, bHigh^t
		t = (f0 ^ f1) & swap
		f0, f1 = f0^t, f1^t
		t = (g0 ^ g1) & swap
		g0, g1 = g0^t, g1^t

		aLow, borrow = bits.Sub64(aLow, bLow&odd, 0)
		aHigh, _ = bits.Sub64(aHigh, bHigh&odd, borrow)
		f0 -= f1 & odd
		g0 -= g1 & odd
		aLow, aHigh = aLow>>1|aHigh<<63, aHigh>>1
		f1 <<= 1
		g1 <<= 1
	}
	return matrix{f0, g0, f1, g1}
}

// shrink applies m to a and b, which are not negative; if one becomes so, it and its row of m are negated.
func (m *matrix) shrink(a, b []uint64) {
	var aCarry, bCarry, aLast, bLast uint64
	for i, x := range a {
		y := b[i]
		var word uint64
		word, aCarry = mulAdd2(x, m.f0, y, m.g0, aCarry)
		if i > 0 {
			a[i-1] = aLast>>gcdSteps | word<<(64-gcdSteps)
		}
		aLast = word
		word, bCarry = mulAdd2(x, m.f1, y, m.g1, bCarry)
		if i > 0 {
			b[i-1] = bLast>>gcdSteps | word<<(64-gcdSteps)
		}
		bLast = word
	}
	a[len(a)-1] = aLast>>gcdSteps | aCarry<<(64-gcdSteps)
	b[len(b)-1] = bLast>>gcdSteps | bCarry<<(64-gcdSteps)

	negative := uint64(int64(aCarry) >> 63)
	negateIf(a, negative)
	m.f0, m.g0 = (m.f0^negative)-negative, (m.g0^negative)-negative
	negative = uint64(int64(bCarry) >> 63)
	negateIf(b, negative)
	m.f1, m.g1 = (m.f1^negative)-negative, (m.g1^negative)-negative
}

// grow applies m, times 2^62, to p and r, which are in two's complement and have room for it.
func (m *matrix) grow(p, r []uint64) {
	var pCarry, rCarry uint64
	r = r[:len(p)]
	for i, x := range p {
		y := r[i]
		p[i], pCarry = mulAdd2(x, m.f0, y, m.g0, pCarry)
		r[i], rCarry = mulAdd2(x, m.f1, y, m.g1, rCarry)
	}
}

// mulAdd2 is x·f + y·g + carry; f, g and carry are signed, and |f| + |g| <= 2^62.
func mulAdd2(x, f, y, g, carry uint64) (low, high uint64) {
	xHigh, xLow := bits.Mul64(x, f)
	yHigh, yLow := bits.Mul64(y, g)
	high = xHigh + yHigh - x&uint64(int64(f)>>63) - y&uint64(int64(g)>>63) + uint64(int64(carry)>>63)
	low, c := bits.Add64(xLow, yLow, 0)
	high += c
	low, c = bits.Add64(low, carry, 0)
	return low, high + c
}
