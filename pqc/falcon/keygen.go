package falcon

import (
	"crypto/sha3"
	"encoding/binary"
)

// ntruGen makes f, g, F, G with fG - gF = q of degree 2^logn, from rng in the way of the reference implementation
// (Falcon spec 3.8.2, algorithm 5): the same ones from the same rng, which must not have been read before. logn is from 1
// to 10; degrees below 512 are for tests.
func ntruGen(logn uint, rng *sha3.SHAKE) (f, g, F, G []int8) {
	n := 1 << logn
	gauss := &gaussSource{rng: rng}
	defer clear(gauss.buffer[:])
	s := newSolver(logn)
	defer s.wipe()
	f, g, F, G = make([]int8, n), make([]int8, n), make([]int8, n), make([]int8, n)
	h := make([]uint16, n)
	for {
		gauss.polynomial(f, logn)
		gauss.polynomial(g, logn)
		if isShort(f, g, logn) && s.isShortOrthogonalized(f, g) && divideModQ(h, g, f) && s.solve(F, G, f, g) {
			return f, g, F, G
		}
	}
}

// maxSmall is, by the logarithm of the degree, the greatest absolute value of a coefficient of f and g: so many bits have
// they in the encoding (Falcon spec 3.11.5), where the least number of so many bits is not used.
var maxSmall = [11]int8{0, 127, 127, 127, 127, 127, 63, 63, 31, 31, 15}

// isShort reports whether f and g can be encoded and (g, -f) is at most 1.17·sqrt(q) long.
func isShort(f, g []int8, logn uint) bool {
	most, norm, outside := int32(maxSmall[logn]), int32(0), int32(0)
	g = g[:len(f)]
	for i := range f {
		a, b := int32(f[i]), int32(g[i])
		norm += a*a + b*b // at most 2·1024·127^2 < 2^25
		outside |= (most - a) | (most + a) | (most - b) | (most + b)
	}
	return outside >= 0 && norm <= maxSmallNorm
}

// isShortOrthogonalized reports whether the other vector of the Gram-Schmidt orthogonalization, q·(adj f, adj g) divided
// by f·adj(f) + g·adj(g), is at most 1.17·sqrt(q) long too.
func (s *solver) isShortOrthogonalized(f, g []int8) bool {
	n := len(f)
	x, y, inverse := s.floats[0][:n], s.floats[1][:n], s.floats[2][:n]
	polyInt(x, f)
	polyInt(y, g)
	fft(x)
	fft(y)
	polyInvNorm(inverse, x, y)
	// The squared norm is, by Parseval, 2/n times that of the n/2 values, each of which is q^2 times the inverse there.
	sum := fprOf(0)
	for _, v := range inverse[:n/2] {
		sum = sum.add(v)
	}
	return sum.mul(fprConst(q * q * 2 / float64(n))).lt(fprConst(maxOrthogonalized))
}

// maxOrthogonalized is 1.17^2·q.
const maxOrthogonalized = 1.17 * 1.17 * q

// gaussSource makes coefficients of f and g from bytes of rng.
type gaussSource struct {
	rng    *sha3.SHAKE
	buffer [8 * 136]byte
	rest   []byte // of buffer, not used yet
}

func (s *gaussSource) word() uint64 {
	if len(s.rest) == 0 {
		s.rng.Read(s.buffer[:]) // never fails
		s.rest = s.buffer[:]
	}
	word := binary.LittleEndian.Uint64(s.rest)
	s.rest = s.rest[8:]
	return word
}

// polynomial sets f to coefficients with standard deviation 1.17·sqrt(q/2n) whose sum is odd: then the resultant of f and
// x^n + 1 is, too, and has no factor 2 in common with that of g.
func (s *gaussSource) polynomial(f []int8, logn uint) {
	odd := int32(0)
	for i := range f {
		for {
			x := int32(0)
			for range 1 << (10 - logn) {
				x += s.sample()
			}
			// What is thrown away says nothing of what is kept.
			if x < -127 || x > 127 || i == len(f)-1 && (odd^x)&1 == 0 {
				continue
			}
			odd ^= x
			f[i] = int8(x)
			break
		}
	}
}

// gaussTable is the discrete Gaussian distribution of standard deviation 1.17·sqrt(q/2048), that of degree 1024, times 2^63:
// first the probability of 0, then, among those greater than 0, that of a number greater than the index.
// TestGaussTable computes it again.
var gaussTable = [...]uint64{
	1283868770400643928, 6416574995475331444, 4078260278032692663, 2353523259288686585, 1227179971273316331,
	575931623374121527, 242543240509105209, 91437049221049666, 30799446349977173, 9255276791179340,
	2478152334826140, 590642893610164, 125206034929641, 23590435911403, 3948334035941, 586753615614,
	77391054539, 9056793210, 940121950, 86539696, 7062824, 510971, 32764, 1862, 94, 4, 0,
}

// sample is a number of the distribution of gaussTable, all of which it reads. It takes 16 bytes.
func (s *gaussSource) sample() int32 {
	const low = 1<<63 - 1
	first, second := s.word(), s.word()&low
	negative := int32(first >> 63)
	// Differences of numbers of 63 bits: the highest bit says which is less.
	zero := (first&low - gaussTable[0]) >> 63
	magnitude := uint64(1)
	for _, bound := range gaussTable[1:] {
		magnitude += (second - bound) >> 63
	}
	x := int32(magnitude &^ -zero)
	return (x ^ -negative) + negative
}
