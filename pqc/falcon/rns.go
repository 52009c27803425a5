package falcon

import "math/bits"

// Arithmetic modulo the primes of primes.go: key generation has its long integers as residues modulo as many of them as it
// needs, because products are cheap there, and rebuilds the integers where it must compare sizes. Products are
// Montgomery's, with radix R = 2^64. All of it takes the same time for all values of the same length.

// field is the integers modulo p, each in [0, p).
type field struct {
	p       uint64
	inverse uint64 // of p modulo 2^64
	square  uint64 // R^2 modulo p
}

func newField(p uint64) field {
	_, r := bits.Div64(1, 0, p) // p is public
	_, square := bits.Div64(r, 0, p)
	return field{p, inverseWord(p), square}
}

func (m *field) add(x, y uint64) uint64 {
	d, borrow := bits.Sub64(x+y, m.p, 0)
	return d + m.p&-borrow
}

func (m *field) sub(x, y uint64) uint64 {
	d, borrow := bits.Sub64(x, y, 0)
	return d + m.p&-borrow
}

// mul is x·y/R. One of both may be any number of 64 bits.
func (m *field) mul(x, y uint64) uint64 {
	high, low := bits.Mul64(x, y)
	t, _ := bits.Mul64(low*m.inverse, m.p)
	d, borrow := bits.Sub64(high, t, 0)
	return d + m.p&-borrow
}

// montgomery is x·R.
func (m *field) montgomery(x uint64) uint64 { return m.mul(x, m.square) }

// power is R^e; e is public and at least 1.
func (m *field) power(e int) uint64 {
	result, base := m.montgomery(1), m.square // 1 and R, times R
	for e--; e > 0; e >>= 1 {
		if e&1 == 1 {
			result = m.mul(result, base)
		}
		base = m.mul(base, base)
	}
	return result
}

// reduce is x modulo p; x is not negative. power is m.power(len(x)+1).
func (m *field) reduce(x []uint64, power uint64) uint64 {
	// Montgomery's reduction of the whole of x: after each word the sum of the words so far is divided by R. It is in
	// [-p, 1] then, so that a signed word holds it.
	var acc uint64
	p, inverse := m.p, m.inverse
	for _, word := range x {
		low, carry := bits.Add64(acc, word, 0)
		t, _ := bits.Mul64(low*inverse, p)
		acc = uint64(int64(acc)>>63) + carry - t
	}
	return m.mul(acc+p&-(acc>>63), power)
}

// reduceSigned is x modulo p; x is in two's complement.
func (m *field) reduceSigned(x []uint64, power uint64) uint64 {
	// Of a negative x, reduce takes R^len(x) too much.
	r := m.reduce(x, power)
	negative := -(x[len(x)-1] >> 63)
	return m.sub(r, m.mul(power, 1)&negative)
}

// reduceInt is x modulo p.
func (m *field) reduceInt(x int64) uint64 { return uint64(x) + m.p&uint64(x>>63) }

// ring is the polynomials modulo p and x^n + 1, for n a power of two up to 1024.
type ring struct {
	field
	// roots[i] is w^b·R, where w is a primitive 2n-th root of one and b is i with its bits reversed; n for the largest n.
	// The roots for a smaller n are the first of them.
	roots []uint64
}

// set makes r the ring modulo a prime of the table, for n up to len(r.roots).
func (r *ring) set(p *prime) {
	r.field = newField(p.p)
	w := r.montgomery(p.root)
	for n := 1024; n > len(r.roots); n /= 2 {
		w = r.mul(w, w)
	}
	r.roots[0] = r.montgomery(1)
	// roots[i+j] = roots[i]·w^(n/2j), for i < j; the largest j wants w itself.
	var powers [10]uint64
	levels := bits.Len(uint(len(r.roots))) - 1
	for level := levels - 1; level >= 0; level-- {
		powers[level] = w
		w = r.mul(w, w)
	}
	for level := range levels {
		j := 1 << level
		low, high := r.roots[:j], r.roots[j:][:j]
		for i := range low {
			high[i] = r.mul(low[i], powers[level])
		}
	}
}

// transform evaluates a at the odd powers of w, in place and in bit-reversed order: the values at 2i and at 2i+1 are those of
// opposite roots.
func (r *ring) transform(a []uint64) {
	m := r.field
	for blocks, half := 1, len(a)/2; half > 0; blocks, half = 2*blocks, half/2 {
		for i := range blocks {
			w := r.roots[blocks+i]
			low, high := a[2*half*i:][:half], a[2*half*i+half:][:half]
			for j := range low {
				x, y := low[j], m.mul(high[j], w)
				low[j], high[j] = m.add(x, y), m.sub(x, y)
			}
		}
	}
}

// transformBack undoes transform, and multiplies by scale·len(a)/R.
func (r *ring) transformBack(a []uint64, scale uint64) {
	m := r.field
	for blocks, half := len(a)/2, 1; blocks > 0; blocks, half = blocks/2, 2*half {
		for i := range blocks {
			w := r.roots[2*blocks-1-i] // minus the inverse of that of transform
			low, high := a[2*half*i:][:half], a[2*half*i+half:][:half]
			for j := range low {
				x, y := low[j], high[j]
				low[j], high[j] = m.add(x, y), m.mul(m.sub(y, x), w)
			}
		}
	}
	for i := range a {
		a[i] = m.mul(a[i], scale)
	}
}

// inverseOf is R/n, n a power of two up to 2048: the scale with which transformBack gives the polynomial itself.
func (m *field) inverseOf(n int) uint64 { return m.montgomery(m.p - (m.p-1)/uint64(n)) }

// rebuild replaces, in each of the numbers of which x has size words each, the residues modulo the first size primes by the
// number itself in two's complement, the one that is nearest to 0 (Garner's algorithm, with a mixed radix). product is
// scratch, of size words.
func rebuild(x []uint64, size int, product []uint64) {
	product = product[:size]
	product[0] = primes[0].p
	for j := 1; j < size; j++ {
		m := newField(primes[j].p)
		power, inverse := m.power(j+1), m.montgomery(primes[j].inverse)
		for at := 0; at < len(x); at += size {
			known := x[at:][:j]
			digit := m.mul(m.sub(x[at+j], m.reduce(known, power)), inverse)
			x[at+j] = addMul(known, product[:j], digit)
		}
		product[j] = addMul(product[:j], product[:j], primes[j].p-1)
	}
	for at := 0; at < len(x); at += size {
		centreBig(x[at:][:size], product)
	}
}
