package falcon

// Arithmetic modulo q and x^n + 1, n a power of two up to 1024, by the number theoretic transform (Falcon spec 3.7.1). All
// of it takes the same time for all values of the same length.

// q is the modulus of the scheme (Falcon spec 2.4).
const q = 12289

// A root is a power of a root of one and its quotient floor(w*2^32/q).
type root struct{ w, quotient uint32 }

// mulRoot is x*r.w modulo q, by Shoup's method: the quotient of the product is guessed, and is at most one too low. The
// result is less than q + x*q/2^32: at most q if x < 28q.
func mulRoot(x uint32, r root) uint32 {
	return x*r.w - uint32(uint64(x)*uint64(r.quotient)>>32)*q
}

// reduce is x modulo q, in [0, q) (Barrett's method; written out, so that no compiler makes a division of it).
func reduce(x uint32) uint32 {
	x -= uint32(uint64(x)*(1<<32/q)>>32) * q // in [0, 2q)
	x -= q
	return x + q&-(x>>31)
}

// transform evaluates a polynomial at the odd powers of the 2n-th root of one, in place and in bit-reversed order. Each of a
// must be at most q and becomes at most 11q: 32 bits leave so much room that nothing is reduced on the way.
func transform(a []uint32) {
	n := len(a)
	for m, half := 1, n/2; m < n; m, half = 2*m, half/2 {
		for i := range m {
			r := roots[(m+i)&1023]
			block := a[2*half*i:]
			low, high := block[:half], block[half:2*half]
			high = high[:len(low)]
			for j := range low {
				x, y := low[j], mulRoot(high[j], r)
				low[j], high[j] = x+y, x+q-y
			}
		}
	}
}

// transformBack undoes transform. Each of a must be less than q, and is so again.
func transformBack(a []uint32) {
	n := len(a)
	// The sums double in each layer: less than 1024q at the end. The products stay under q + 64.
	most := uint32(2 * q)
	for m, half := n/2, 1; m > 0; m, half = m/2, 2*half {
		for i := range m {
			r := roots[(2*m-1-i)&1023] // minus the inverse of that of transform
			block := a[2*half*i:]
			low, high := block[:half], block[half:2*half]
			high = high[:len(low)]
			for j := range low {
				x, y := low[j], high[j]
				low[j], high[j] = x+y, mulRoot(y+most-x, r)
			}
		}
		most *= 2
	}
	// 1/n = q - (q-1)/n, because n divides q-1.
	inverse := q - (q-1)/uint32(n)
	for i := range a {
		a[i] = reduce(reduce(a[i]) * inverse)
	}
}

// modQ sets each of dst to that of src modulo q, in [0, q). Those of src must be greater than -q and less than q.
func modQ[T int8 | int16](dst []uint32, src []T) {
	dst = dst[:len(src)]
	for i, x := range src {
		y := uint32(int32(x))
		dst[i] = y + q&-(y>>31)
	}
}

// centre is the number in [-6144, 6144] that is x modulo q; x must be less than q.
func centre(x uint32) int32 {
	y := int32(x)
	return y - q&((q/2-y)>>31)
}

// divideModQ sets h = g/f modulo q and x^n + 1, where n = len(f) is a power of two from 2 to 1024, and each of h is in
// [0, q). It reports whether f is invertible; if not, h is undefined.
func divideModQ(h []uint16, g, f []int8) bool {
	var arrays [3][1024]uint32
	defer clear(arrays[:])
	n := len(f)
	x, y, prefix := arrays[0][:n], arrays[1][:n], arrays[2][:n]
	modQ(x, f)
	modQ(y, g)
	transform(x)
	transform(y)

	// Montgomery's trick: one inversion for the product of all. A zero counts as one, and is remembered.
	zero := uint32(0)
	product := uint32(1)
	for i := range x {
		x[i] = reduce(x[i])
		isZero := (x[i] - 1) >> 31
		zero |= isZero
		x[i] += isZero
		prefix[i] = product
		product = reduce(product * x[i])
	}
	inverse := invert(product)
	for i := n - 1; i >= 0; i-- {
		y[i] = reduce(reduce(y[i]) * reduce(inverse*prefix[i]))
		inverse = reduce(inverse * x[i])
	}
	transformBack(y)
	for i := range h[:n] {
		h[i] = uint16(y[i])
	}
	return zero == 0
}

// invert is 1/x modulo q, x^(q-2); x must be in [1, q).
func invert(x uint32) uint32 {
	result := uint32(1)
	for bit := 13; bit >= 0; bit-- {
		result = reduce(result * result)
		if (q-2)>>bit&1 == 1 { // a constant
			result = reduce(result * x)
		}
	}
	return result
}
