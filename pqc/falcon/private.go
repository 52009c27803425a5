package falcon

import "fmt"

// maxSmallNorm is the largest squared norm of (f, g): floor(1.17^2 * q) (Falcon spec 3.8.2, algorithm 5).
const maxSmallNorm = 16822

// newPrivateKey makes a key of f, g, F and G, which it keeps. It fails with ErrPrivateKey.
func newPrivateKey(d Degree, f, g, F, G []int8) (*PrivateKey, error) {
	k := &PrivateKey{f: f, g: g, F: F, G: G}
	h := make([]uint16, d)
	if !divideModQ(h, g, f) {
		return nil, fmt.Errorf("%w: f is not invertible", ErrPrivateKey)
	}
	k.public.set(d, h)
	return k, nil
}

// checkRead completes a key whose G is not known yet, and says what of it GenerateKey could not have made.
func (k *PrivateKey) checkRead() error {
	norm := 0
	for i := range k.f {
		norm += int(k.f[i])*int(k.f[i]) + int(k.g[i])*int(k.g[i])
	}
	if norm > maxSmallNorm {
		return fmt.Errorf("%w: f and g are too long", ErrPrivateKey)
	}
	if !k.public.complete(k.G, k.F) {
		return fmt.Errorf("%w: G has a coefficient that is too large", ErrPrivateKey)
	}
	if !solvesNTRU(k.f, k.g, k.F, k.G) {
		return fmt.Errorf("%w: fG - gF is not %d", ErrPrivateKey, q)
	}
	return nil
}

// complete sets G = hF modulo q, centred: what fG - gF = q says modulo q. It reports whether each of G is in [-127, 127].
func (p *PublicKey) complete(G, F []int8) bool {
	var work [1024]uint32
	defer clear(work[:])
	x := work[:len(F)]
	modQ(x, F)
	transform(x)
	for i, h := range p.h {
		x[i] = reduce(x[i] * h)
	}
	transformBack(x)
	good := uint32(1)
	for i := range x {
		y := centre(x[i])
		good &= uint32(127-y)>>31 ^ 1
		good &= uint32(127+y)>>31 ^ 1
		G[i] = int8(y)
	}
	return good == 1
}

// solvesNTRU reports whether fG - gF = q modulo x^n + 1, over the integers: modulo q alone would admit keys with which
// signing fails. Of a sum of 2n products no intermediate value is over 2*1024*127^2 < 2^26.
func solvesNTRU(f, g, F, G []int8) bool {
	n := len(f)
	var sums [2 * 1024]int32
	defer clear(sums[:])
	for i := range n {
		a, b := int32(f[i]), int32(g[i])
		row := sums[i : i+n]
		for j := range row {
			row[j] += a*int32(G[j]) - b*int32(F[j])
		}
	}
	wrong := sums[0] - sums[n] - q
	for i := 1; i < n; i++ {
		wrong |= sums[i] - sums[i+n]
	}
	return wrong == 0
}
