package falcon

import "fmt"

// The smallest standard deviation that the sampler is asked for, and the inverse of that of signatures (Falcon spec table
// 3.3): the bits that the reference implementation has, of which the last ones are not those of the formulas.
func (d Degree) sigmaMin() fpr {
	if d == Degree512 {
		return fprConst(0x1.47201bf1f7a75p+0)
	}
	return fprConst(0x1.4c5c19990c764p+0)
}

func (d Degree) inverseSigma() fpr {
	if d == Degree512 {
		return fprConst(0x1.8b6c2de64c7cap-8)
	}
	return fprConst(0x1.8531ef6311ae3p-8)
}

// expandedKey is what signing wants beside f, g, F and G, computed once for a key: the basis B and the tree T of Falcon spec
// 3.8.1. It takes 56 KiB for Falcon-512 and 120 KiB for Falcon-1024.
type expandedKey struct {
	g, f, G, F []fpr // the basis ((g, -f), (G, -F)), transformed; f and F are negated
	tree       []fpr
}

// treeSize is the length of the tree of polynomials of n coefficients: at each node the polynomial l10 of L, then the tree of
// d00 and that of d11, which are half as large; at a leaf, of one coefficient, the inverse of the standard deviation.
func treeSize(n int) int {
	size := n
	for m := n; m > 1; m /= 2 {
		size += n
	}
	return size
}

// expand computes k.expanded from k.f, k.g, k.F and k.G. It fails with ErrPrivateKey if a leaf of the tree is outside
// what the sampler takes, so that signing with a key that was read always ends.
func (k *PrivateKey) expand() error {
	d := k.public.degree
	n := int(d)
	size := treeSize(n)
	all := make([]fpr, 4*n+size)
	basis := [4][]fpr{all[:n:n], all[n : 2*n : 2*n], all[2*n : 3*n : 3*n], all[3*n : 4*n : 4*n]}
	for i, a := range [4][]int8{k.g, k.f, k.bigG, k.bigF} {
		polyInt(basis[i], a)
		fft(basis[i])
	}
	g, f, G, F := basis[0], basis[1], basis[2], basis[3]
	polyNeg(f)
	polyNeg(F)

	var work [6 * 1024]fpr
	defer clear(work[:])
	g00, g01, g11, spare := work[:n], work[n:2*n], work[2*n:3*n], work[3*n:6*n]
	polyAddMulAdjoints(g00, g, f, g, f)
	polyAddMulAdjoints(g01, g, f, G, F)
	polyAddMulAdjoints(g11, G, F, G, F)
	tree := all[4*n:]
	growTree(tree, g00, g01, g11, spare)
	if !normalizeTree(tree, n, d.inverseSigma(), d.sigmaMin()) {
		clear(all)
		return fmt.Errorf("%w: its basis is too long to sign with", ErrPrivateKey)
	}
	k.expanded = expandedKey{g: g, f: f, G: G, F: F, tree: tree}
	return nil
}

// growTree computes the tree of the self-adjoint matrix ((g00, g01), (adj g01, g11)), with the diagonal's elements at the leaves,
// and spoils the matrix (Falcon spec 3.8.3, algorithm 9). spare is three times as long as g00.
func growTree(tree, g00, g01, g11, spare []fpr) {
	n := len(g00)
	if n == 1 {
		// Both diagonal elements are halves of one that is its own adjoint, so g00 is all there is.
		tree[0] = g00[0]
		return
	}
	polyLDL(g00, g01, g11)
	copy(tree, g01)
	hn := n / 2
	size := treeSize(hn)
	left, right := tree[n:][:size], tree[n+size:][:size]
	// Each diagonal element d makes the matrix ((d0, d1), (adj d1, d0)) of its halves.
	for _, half := range [2]struct{ tree, d []fpr }{{left, g00}, {right, g11}} {
		d0, d1, again := spare[:hn], spare[hn:n], spare[n:n+hn]
		fftSplit(d0, d1, half.d)
		copy(again, d0)
		growTree(half.tree, d0, d1, again, spare[n+hn:])
	}
}

// normalizeTree replaces each leaf x by sqrt(x)/sigma, and reports whether all of them are between 1/sigmaMax and 1/sigmaMin. Those
// of a key that was generated are (Falcon spec 3.8.1, algorithm 4, and 3.9.2, algorithm 11); on a bound the
// sampler's probabilities would round to more than one.
func normalizeTree(tree []fpr, n int, inverseSigma, sigmaMin fpr) bool {
	if n == 1 {
		tree[0] = tree[0].sqrt().mul(inverseSigma)
		return fprConst(1/sigmaMax+1e-9).lt(tree[0]) && tree[0].mul(sigmaMin).lt(fprConst(1))
	}
	size := treeSize(n / 2)
	left := normalizeTree(tree[n:][:size], n/2, inverseSigma, sigmaMin)
	right := normalizeTree(tree[n+size:][:size], n/2, inverseSigma, sigmaMin)
	return left && right
}

func (e *expandedKey) wipe() {
	for _, secret := range [][]fpr{e.g, e.f, e.G, e.F, e.tree} {
		clear(secret)
	}
	*e = expandedKey{}
}
