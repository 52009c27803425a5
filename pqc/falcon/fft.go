package falcon

// Polynomials modulo x^n + 1 with real coefficients, n a power of two from 2 to 1024, and their values at half of the n
// complex roots of x^n + 1; the other half are the conjugates (Falcon spec 3.5). Transformed, the first half of a slice
// has the real parts and the second the imaginary ones, and root i of n/2 is that of fftRoots' order: roots 2i and 2i+1 are
// the two square roots of root i at half the degree, up to conjugation.

// fftRoot is the root w of the i-th pair (w, -w) of m square roots; the same one for all degrees.
func fftRoot(m, i int) (re, im fpr) {
	w := &fftRoots[m+i]
	return fprConst(w[0]), fprConst(w[1])
}

// fft transforms f in place.
func fft(f []fpr) {
	re, im := halves(f)
	for m, t := 1, len(re)/2; t > 0; m, t = 2*m, t/2 {
		for i := range m {
			wre, wim := fftRoot(m, i)
			at := 2 * i * t
			xre, yre := re[at:][:t], re[at+t:][:t]
			xim, yim := im[at:][:t], im[at+t:][:t]
			for j := range t {
				a, b := mulComplex(yre[j], yim[j], wre, wim)
				yre[j], yim[j] = xre[j].sub(a), xim[j].sub(b)
				xre[j], xim[j] = xre[j].add(a), xim[j].add(b)
			}
		}
	}
}

// ifft is the inverse of fft.
func ifft(f []fpr) {
	re, im := halves(f)
	for m, t := len(re)/2, 1; m > 0; m, t = m/2, 2*t {
		for i := range m {
			wre, wim := fftRoot(m, i)
			wim = wim.neg()
			at := 2 * i * t
			xre, yre := re[at:][:t], re[at+t:][:t]
			xim, yim := im[at:][:t], im[at+t:][:t]
			for j := range t {
				a, b := xre[j].sub(yre[j]), xim[j].sub(yim[j])
				xre[j], xim[j] = xre[j].add(yre[j]), xim[j].add(yim[j])
				yre[j], yim[j] = mulComplex(a, b, wre, wim)
			}
		}
	}
	polyScale(f, fprConst(1/float64(len(re))))
}

// fftSplit sets f0 and f1, transformed and of half the degree, so that f(x) = f0(x^2) + x·f1(x^2) (Falcon spec 3.6,
// algorithm 1).
func fftSplit(f0, f1, f []fpr) {
	re, im := halves(f)
	if len(re) == 1 {
		f0[0], f1[0] = re[0], im[0]
		return
	}
	re0, im0 := halves(f0)
	re1, im1 := halves(f1)
	n := len(re0)
	im0, re1, im1 = im0[:n], re1[:n], im1[:n]
	roots := fftRoots[n:][:n]
	for i := range re0 {
		are, aim, bre, bim := re[2*i], im[2*i], re[2*i+1], im[2*i+1]
		re0[i], im0[i] = are.add(bre).half(), aim.add(bim).half()
		wre, wim := fprConst(roots[i][0]), fprConst(roots[i][1])
		tre, tim := mulComplex(are.sub(bre), aim.sub(bim), wre, wim.neg())
		re1[i], im1[i] = tre.half(), tim.half()
	}
}

// fftMerge is the inverse of fftSplit (Falcon spec 3.6, algorithm 2); f is neither f0 nor f1.
func fftMerge(f, f0, f1 []fpr) {
	re, im := halves(f)
	if len(re) == 1 {
		re[0], im[0] = f0[0], f1[0]
		return
	}
	re0, im0 := halves(f0)
	re1, im1 := halves(f1)
	n := len(re0)
	im0, re1, im1 = im0[:n], re1[:n], im1[:n]
	roots := fftRoots[n:][:n]
	for i := range re0 {
		wre, wim := fprConst(roots[i][0]), fprConst(roots[i][1])
		bre, bim := mulComplex(re1[i], im1[i], wre, wim)
		re[2*i], im[2*i] = re0[i].add(bre), im0[i].add(bim)
		re[2*i+1], im[2*i+1] = re0[i].sub(bre), im0[i].sub(bim)
	}
}

// halves are the real and the imaginary parts of f, in place.
func halves(f []fpr) (re, im []fpr) {
	n := len(f) / 2
	return f[:n], f[n:][:n]
}

func mulComplex(are, aim, bre, bim fpr) (re, im fpr) {
	return are.mul(bre).sub(aim.mul(bim)), are.mul(bim).add(aim.mul(bre))
}
