package falcon

import "fmt"

// maxSmallNorm is the largest squared norm of (f, g): floor(1.17^2 * q) (Falcon spec 3.8.2, algorithm 5).
const maxSmallNorm = 16822

// newPrivateKey makes a key of f, g, F and G, which it keeps. It fails with ErrPrivateKey.
func newPrivateKey(d Degree, f, g, F, G []int8) (*PrivateKey, error) {
	k := &PrivateKey{f: f, g: g, bigF: F, bigG: G}
	h := make([]uint16, d)
	if !divideModQ(h, g, f) {
		return nil, fmt.Errorf("%w: f is not invertible", ErrPrivateKey)
	}
	k.public.set(d, h)
	return k, nil
}

// complete computes the G of a key that was read: hF modulo q, centred, is what fG - gF = q says modulo q. It fails with
// ErrPrivateKey if that is no G.
func (k *PrivateKey) complete() error {
	var work [1024]uint32
	defer clear(work[:])
	x := work[:len(k.bigF)]
	modQ(x, k.bigF)
	transform(x)
	for i, h := range k.public.h {
		x[i] = reduce(x[i] * h)
	}
	transformBack(x)
	outside := int32(0) // negative if a coefficient is outside [-127, 127]
	for i := range x {
		c := centre(x[i])
		outside |= (127 - c) | (127 + c)
		k.bigG[i] = int8(c)
	}
	if outside < 0 || !solvesNTRU(k.f, k.g, k.bigF, k.bigG) {
		return fmt.Errorf("%w: for no short G is fG - gF = %d", ErrPrivateKey, q)
	}
	return nil
}

// solvesNTRU reports whether fG - gF = q modulo x^n + 1, over the integers: modulo q alone would admit keys with which
// signing fails. No coefficient of it is over 2*1024*128^2 < 2^26, so that one prime of key generation's says it.
func solvesNTRU(f, g, F, G []int8) bool {
	var work [5][1024]uint64
	defer clear(work[:])
	n := len(f)
	r := ring{roots: work[4][:n]}
	r.set(&primes[0])
	for i, x := range [4][]int8{f, g, F, G} {
		for j, c := range x {
			work[i][j] = r.reduceInt(int64(c))
		}
		r.transform(work[i][:n])
	}
	return r.differByQ(work[0][:n], work[1][:n], work[2][:n], work[3][:n])
}
