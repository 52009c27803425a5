package falcon

import "math/bits"

// soft is a number of IEEE 754 binary64 whose operations use integers only and take a time that does not depend on it: no
// branch, no table, no instruction that is known to vary. Results are rounded to nearest, ties to even, and have the bits that
// float64 gives, as long as neither an operand nor the result is subnormal, infinite or not a number, none of which
// occurs in Falcon; a result that would be subnormal is zero.
type soft uint64

const (
	softFraction = 1<<52 - 1
	softAbs      = 1<<63 - 1
)

func (x soft) sign() uint64 { return uint64(x) >> 63 }
func (x soft) exp() int64   { return int64(x>>52) & 0x7FF }

// nonzero is 1 if x is not 0, or else 0.
func nonzero(x uint64) uint64 { return (x | -x) >> 63 }

// mantissa is the integer m in [2^52, 2^53) with x = ±m·2^(exp-1075), or 0.
func (x soft) mantissa() uint64 {
	one := nonzero(uint64(x.exp()))
	return (uint64(x)&softFraction | 1<<52) & -one
}

// softPack rounds ±m·2^e, where m is 0 or in [2^54, 2^55); its lowest bit also stands for all the bits that were lost below.
func softPack(sign uint64, e int64, m uint64) soft {
	e += 1076
	m &^= uint64(e >> 63) // too small
	e &= -int64(m >> 54)  // the exponent of 0 is 0
	// Bit 52 of m>>2 adds one to the exponent, as does the carry when rounding up reaches the next power of two.
	x := sign<<63 | m>>2
	x += uint64(e) << 52
	// Of the last bit, the half and the rest: 011 rounds up to the even, 110 and 111 to the nearest.
	return soft(x + (0xC8>>(m&7))&1)
}

// softNormalize shifts m, unless it is 0, until bit 63 is set, and takes the shift from e.
func softNormalize(m uint64, e int64) (uint64, int64) {
	for s := uint(32); s > 0; s >>= 1 {
		low := 1 - nonzero(m>>(64-s)) // 1 if the upper s bits are 0
		m ^= (m ^ m<<s) & -low
		e -= int64(low) * int64(s)
	}
	return m, e
}

// sticky shifts m right by n < 64; the lowest bit of the result is set if any that was lost was.
func sticky(m uint64, n uint) uint64 {
	n &= 63
	lost := m & (1<<n - 1)
	return m>>n | nonzero(lost)
}

func softOf(i int64) soft {
	sign := uint64(i) >> 63
	m, e := softNormalize((uint64(i)^-sign)+sign, 9)
	return softPack(sign, e, sticky(m, 9))
}

func (x soft) add(y soft) soft {
	// x gets the larger absolute value, or if both are equal the positive one: x - x is +0.
	ax, ay := uint64(x&softAbs), uint64(y&softAbs)
	swap := (ax-ay)>>63 | (1-nonzero(ax-ay))&x.sign()
	d := (x ^ y) & -soft(swap)
	x, y = x^d, y^d

	mx, my := x.mantissa()<<3, y.mantissa()<<3
	n := x.exp() - y.exp()
	far := uint64(59-n) >> 63 // from a distance of 60 on y is less than the rest that decides
	my = sticky(my, uint(n))&(far-1) | nonzero(my)&far
	m := mx + my - my<<1&-(x.sign()^y.sign())
	m, e := softNormalize(m, x.exp()-1078+9)
	return softPack(x.sign(), e, sticky(m, 9))
}

func (x soft) sub(y soft) soft { return x.add(y.neg()) }

func (x soft) neg() soft { return x ^ 1<<63 }

func (x soft) half() soft {
	e := uint64(x.exp())
	x -= 1 << 52 & -soft(nonzero(e))
	return x & (1<<63 | -soft(nonzero(e>>1))) // 0 and the smallest exponent give 0
}

func (x soft) mul(y soft) soft {
	// The product of mantissas times 2^14 is in [2^118, 2^120).
	hi, lo := bits.Mul64(x.mantissa()<<7, y.mantissa()<<7)
	m := hi | nonzero(lo)
	w := m >> 55
	m = sticky(m, uint(w))
	return softPack(x.sign()^y.sign(), x.exp()+y.exp()-2100+int64(w), m)
}

// div is the quotient by y, which is not 0.
func (x soft) div(y soft) soft {
	mx, my := x.mantissa(), y.mantissa()
	var q uint64
	for range 55 {
		one := 1 - (mx-my)>>63 // 1 if mx >= my
		mx = (mx - my&-one) << 1
		q = q<<1 | one
	}
	q = q<<1 | nonzero(mx)
	w := q >> 55
	q = sticky(q, uint(w))
	q &= -nonzero(x.mantissa())
	return softPack(x.sign()^y.sign(), x.exp()-y.exp()-55+int64(w), q)
}

// sqrt is the square root of x, which is not negative.
func (x soft) sqrt() soft {
	m, e := x.mantissa(), x.exp()-1023
	zero := 1 - nonzero(m)
	odd := uint(e & 1)
	m <<= odd + 1
	e = (e - int64(odd)) >> 1
	// One bit of the root at a time: s is twice the root so far, r the next bit, m what remains of the square.
	var q, s uint64
	for r := uint64(1) << 53; r > 0; r >>= 1 {
		t := s + r
		take := -(1 - (m-t)>>63) // all ones if m >= t
		s += r << 1 & take
		q |= r & take
		m = (m - t&take) << 1
	}
	q = q<<1 | nonzero(m)
	return softPack(x.sign(), e-54, q&^-zero)
}

// lt says whether x < y.
func (x soft) lt(y soft) bool {
	_, less := bits.Sub64(x.ordered(), y.ordered(), 0)
	return less == 1
}

// ordered has the order of the numbers as that of unsigned integers; both zeros are equal.
func (x soft) ordered() uint64 {
	s := -x.sign()
	return (uint64(x) ^ s&softAbs - s) ^ 1<<63
}

// fixed is |x| < 2^63 cut to an integer, and what was cut off: the half in bit 63, below it the rest, of which only whether
// it is 0 is right.
func (x soft) fixed() (i, rest uint64) {
	m := x.mantissa() << 10
	n := 1085 - x.exp() // in [0, 1085]
	far := uint64(63-n) >> 63
	i = m >> (uint(n) & 63) &^ -far
	rest = m << 1 << (uint(63-n) & 63)
	return i, rest&^-far | nonzero(m)&far
}

// rint is the nearest integer, the even one of two; |x| < 2^63, as for floor and trunc.
func (x soft) rint() int64 {
	i, rest := x.fixed()
	i += (0xC8 >> (i&1<<2 | rest>>63<<1 | nonzero(rest<<1))) & 1
	return int64((i ^ -x.sign()) + x.sign())
}

// floor is the largest integer that is not larger than x.
func (x soft) floor() int64 {
	i, rest := x.fixed()
	i += nonzero(rest) & x.sign()
	return int64((i ^ -x.sign()) + x.sign())
}

// trunc is x without its fraction.
func (x soft) trunc() int64 {
	i, _ := x.fixed()
	return int64((i ^ -x.sign()) + x.sign())
}
