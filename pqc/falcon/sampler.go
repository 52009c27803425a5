package falcon

import "math/bits"

// The base sampler's standard deviation, the largest one (Falcon spec table 3.3), and 1/(2·sigmaMax^2).
const (
	sigmaMax     = 1.8205
	halfInverse2 = 1 / (2 * sigmaMax * sigmaMax)
)

// sampler draws integers from Gaussian distributions (Falcon spec 3.9.3). How often it repeats, and how many bytes of each trial's
// comparison it reads, is independent of what it draws; nothing else shows in its time.
type sampler struct {
	prng
	sigmaMin fpr
}

// baseTable has at i the probability, times 2^72, of an integer larger than i from the half of a Gaussian of standard deviation
// sigmaMax that is not negative (Falcon spec 3.9.3, table 3.1, RCDT).
var baseTable = [18]struct{ high, low uint64 }{
	{0xa3, 0xf7f42ed3ac391802}, {0x54, 0xd32b181f3f7ddb82}, {0x22, 0x7dcdd0934829c1ff},
	{0xa, 0xd1754377c7994ae4}, {0x2, 0x95846caef33f1f6f}, {0x0, 0x774ac754ed74bd5f},
	{0x0, 0x1024dd542b776ae4}, {0x0, 0x1a1ffdc65ad63da}, {0x0, 0x1f80d88a7b6428},
	{0x0, 0x1c3fdb2040c69}, {0x0, 0x12cf24d031fb}, {0x0, 0x949f8b091f},
	{0x0, 0x3665da998}, {0x0, 0xebf6ebb}, {0x0, 0x2f5d7e},
	{0x0, 0x7098}, {0x0, 0xc6}, {0x0, 0x1},
}

// base is an integer from 0 to 18 of that half (Falcon spec 3.9.3, algorithm 12, BaseSampler). It reads all of the table.
func (s *sampler) base() int64 {
	low := s.uint64()
	high := uint64(s.uint8())
	z := uint64(0)
	for i := 0; i < len(baseTable); i += 3 {
		a, b, c := &baseTable[i], &baseTable[i+1], &baseTable[i+2]
		_, borrow0 := bits.Sub64(low, a.low, 0)
		_, borrow0 = bits.Sub64(high, a.high, borrow0)
		_, borrow1 := bits.Sub64(low, b.low, 0)
		_, borrow1 = bits.Sub64(high, b.high, borrow1)
		_, borrow2 := bits.Sub64(low, c.low, 0)
		_, borrow2 = bits.Sub64(high, c.high, borrow2)
		z += borrow0 + borrow1 + borrow2
	}
	return int64(z)
}

// integer is from the Gaussian of centre mu and standard deviation 1/inverse, which is between sigmaMin and sigmaMax and neither
// of them (Falcon spec 3.9.3, algorithm 15, SamplerZ).
func (s *sampler) integer(mu, inverse fpr) int64 {
	floor := mu.floor()
	r := mu.sub(fprOf(floor))
	scale := inverse.mul(inverse).half()
	ccs := inverse.mul(s.sigmaMin)
	for {
		z0 := s.base()
		b := int64(s.uint8() & 1)
		z := b + (2*b-1)*z0
		d := fprOf(z).sub(r)
		x := d.mul(d).mul(scale).sub(fprOf(z0 * z0).mul(fprConst(halfInverse2)))
		if s.bernoulli(x, ccs) {
			return floor + z
		}
	}
}

// bernoulli is true with the probability ccs·exp(-x), for x >= 0 (Falcon spec 3.9.3, algorithm 14, BerExp).
func (s *sampler) bernoulli(x, ccs fpr) bool {
	const ln2 = 0.69314718055994530941723212145818
	n := x.mul(fprConst(1 / ln2)).trunc()
	r := x.sub(fprOf(n).mul(fprConst(ln2)))
	n ^= (n ^ 63) & ((63 - n) >> 63) // at most 63
	p := (expNeg(r, ccs)<<1 - 1) >> (uint(n) & 63)
	// Byte by byte, until one decides.
	for shift := 56; shift >= 0; shift -= 8 {
		if w := int(s.uint8()) - int(p>>shift&0xFF); w != 0 {
			return w < 0
		}
	}
	return false
}

// expNeg is 2^63·ccs·exp(-x) for 0 <= x < ln 2 (Falcon spec 3.9.3, algorithm 13, ApproxExp).
func expNeg(x, ccs fpr) uint64 {
	z := uint64(x.mul(fprConst(1<<63)).trunc()) << 1
	y := uint64(expTable[0])
	for _, c := range expTable[1:] {
		high, _ := bits.Mul64(z, y)
		y = c - high
	}
	z = uint64(ccs.mul(fprConst(1<<63)).trunc()) << 1
	high, _ := bits.Mul64(z, y)
	return high
}

// expTable has the coefficients of a polynomial close to exp(-x), times 2^63, the highest power first (Falcon spec 3.9.3).
var expTable = [13]uint64{
	0x00000004741183A3, 0x00000036548CFC06, 0x0000024FDCBF140A, 0x0000171D939DE045, 0x0000D00CF58F6F84, 0x000680681CF796E3,
	0x002D82D8305B0FEA, 0x011111110E066FD0, 0x0555555555070F00, 0x155555555581FF00, 0x400000000002B400, 0x7FFFFFFFFFFF4800,
	0x8000000000000000,
}
