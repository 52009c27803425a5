package falcon

import "crypto/sha3"

// sign signs a message with the nonce; rng seeds the sampler as the reference implementation does (56 bytes at each
// attempt). header is 0x30+logn; the signature header ‖ nonce ‖ compressed s2 is repeated, with the same nonce, until it
// is short enough, and fits into SignatureSize if padded (Falcon spec 3.9.1, algorithm 10).
func (k *PrivateKey) sign(message []byte, nonce *[nonceSize]byte, rng *sha3.SHAKE, padded bool) ([]byte, error) {
	d := k.public.degree
	var c [1024]uint16
	hashToPoint(c[:d], nonce[:], message)

	// All that is as long as a polynomial is on the stack.
	var work [workPolynomials * 1024]fpr
	var s2 [1024]int16
	s := sampler{sigmaMin: d.sigmaMin()}
	defer func() { clear(work[:]); clear(s2[:]); s = sampler{} }()

	var encoded [1462]byte // maxSignatureSize of the larger degree
	encoded[0] = headerSignature + byte(d.logn())
	copy(encoded[1:], nonce[:])
	size := d.SignatureSize()
	if !padded {
		size = d.maxSignatureSize()
	}
	room := encoded[1+nonceSize : size]
	for {
		s.seed(rng)
		if !k.shortVector(s2[:d], c[:d], &s, work[:workPolynomials*d]) {
			continue
		}
		n := compress(room, s2[:d])
		if n == 0 {
			continue
		}
		if padded {
			clear(room[n:]) // compress may have written there before
		} else {
			size = 1 + nonceSize + n
		}
		signature := make([]byte, size)
		copy(signature, encoded[:])
		return signature, nil
	}
}

const workPolynomials = 6

// shortVector sets s2 to the second half of a lattice point's distance from (c, 0), drawn from a Gaussian distribution. It
// reports whether the whole distance (s1, s2) is as short as a signature has to be.
func (k *PrivateKey) shortVector(s2 []int16, c []uint16, s *sampler, work []fpr) bool {
	e := &k.expanded
	n := len(c)
	t0, t1, z0, z1, spare := work[:n], work[n:2*n], work[2*n:3*n], work[3*n:4*n], work[4*n:]
	// (t0, t1) = (c, 0)·B^-1 = (-cF, cf)/q, where e.F and e.f are negated.
	inverse := fprConst(1.0 / q)
	polyInt(t0, c)
	fft(t0)
	copy(t1, t0)
	polyMul(t1, e.f)
	polyScale(t1, inverse.neg())
	polyMul(t0, e.F)
	polyScale(t0, inverse)

	s.fourier(z0, z1, e.tree, t0, t1, spare)

	// The lattice point (z0, z1)·B.
	copy(t0, z0)
	copy(t1, z1)
	polyMul(z0, e.g)
	polyMul(z1, e.G)
	polyAdd(z0, z1)
	polyMul(t0, e.f)
	polyMul(t1, e.F)
	polyAdd(t1, t0)
	ifft(z0)
	ifft(t1)

	norm := int64(0)
	for i := range c {
		x, y := int64(c[i])-z0[i].rint(), -t1[i].rint()
		norm += x*x + y*y
		s2[i] = int16(y)
	}
	return norm <= int64(k.public.degree.bound())
}

// fourier draws integer polynomials (z0, z1), transformed, around (t0, t1), so that their distance times the basis that tree was
// grown from is Gaussian (Falcon spec 3.9.2, algorithm 11, ffSampling). spare is twice as long as t0.
func (s *sampler) fourier(z0, z1, tree, t0, t1, spare []fpr) {
	n := len(t0)
	hn := n / 2
	if n == 2 {
		// The halves have one coefficient each, which is its own transform: the leaves are next.
		inverse := tree[3]
		z1[0] = fprOf(s.integer(t1[0], inverse))
		z1[1] = fprOf(s.integer(t1[1], inverse))
		re, im := mulComplex(t1[0].sub(z1[0]), t1[1].sub(z1[1]), tree[0], tree[1])
		re, im = re.add(t0[0]), im.add(t0[1])
		inverse = tree[2]
		z0[0] = fprOf(s.integer(re, inverse))
		z0[1] = fprOf(s.integer(im, inverse))
		return
	}
	size := treeSize(hn)
	left, right := tree[n:][:size], tree[n+size:][:size]
	here, spare := spare[:n], spare[n:]

	fftSplit(z1[:hn], z1[hn:], t1)
	s.fourier(here[:hn], here[hn:], right, z1[:hn], z1[hn:], spare)
	fftMerge(z1, here[:hn], here[hn:])

	// t0 + (t1 - z1)·l10
	addProductOfDifference(here, t0, t1, z1, tree)
	fftSplit(z0[:hn], z0[hn:], here)
	s.fourier(here[:hn], here[hn:], left, z0[:hn], z0[hn:], spare)
	fftMerge(z0, here[:hn], here[hn:])
}

// addProductOfDifference sets d to a + (b - c)·e, all transformed.
func addProductOfDifference(d, a, b, c, e []fpr) {
	dre, dim := halves(d)
	are, aim := halves(a)
	bre, bim := halves(b)
	cre, cim := halves(c)
	ere, eim := halves(e[:len(d)])
	for i := range dre {
		re, im := mulComplex(bre[i].sub(cre[i]), bim[i].sub(cim[i]), ere[i], eim[i])
		dre[i], dim[i] = re.add(are[i]), im.add(aim[i])
	}
}
