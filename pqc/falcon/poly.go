package falcon

// The functions of this file work on polynomials of one length, in place on the first; polyAdd, polySub, polyNeg and polyScale
// on coefficients and on transformed polynomials alike, the others on transformed ones only.

// polyInt sets f to integer coefficients.
func polyInt[T int8 | int16 | uint16 | int32](f []fpr, a []T) {
	for i := range f {
		f[i] = fprOf(int64(a[i]))
	}
}

func polyAdd(f, g []fpr) {
	g = g[:len(f)]
	for i := range f {
		f[i] = f[i].add(g[i])
	}
}

func polySub(f, g []fpr) {
	g = g[:len(f)]
	for i := range f {
		f[i] = f[i].sub(g[i])
	}
}

func polyNeg(f []fpr) {
	for i := range f {
		f[i] = f[i].neg()
	}
}

func polyScale(f []fpr, x fpr) {
	for i := range f {
		f[i] = f[i].mul(x)
	}
}

// polyAdjoint conjugates f: the coefficients of x^i and -x^(n-i) change places.
func polyAdjoint(f []fpr) { polyNeg(f[len(f)/2:]) }

// polyMul multiplies f by g.
func polyMul(f, g []fpr) {
	fre, fim := halves(f)
	gre, gim := halves(g)
	for i := range fre {
		fre[i], fim[i] = mulComplex(fre[i], fim[i], gre[i], gim[i])
	}
}

// polyMulAdjoint multiplies f by the adjoint of g.
func polyMulAdjoint(f, g []fpr) {
	fre, fim := halves(f)
	gre, gim := halves(g)
	for i := range fre {
		fre[i], fim[i] = mulComplex(fre[i], fim[i], gre[i], gim[i].neg())
	}
}

// polyMulSelfAdjoint multiplies f by its own adjoint.
func polyMulSelfAdjoint(f []fpr) {
	re, im := halves(f)
	for i := range re {
		re[i], im[i] = re[i].mul(re[i]).add(im[i].mul(im[i])), fprOf(0)
	}
}

// polyMulReal multiplies f by g, which is its own adjoint: only the real half is read.
func polyMulReal(f, g []fpr) {
	fre, fim := halves(f)
	for i := range fre {
		fre[i], fim[i] = fre[i].mul(g[i]), fim[i].mul(g[i])
	}
}

// polyDivReal divides f by g, which is its own adjoint and nowhere 0: only the real half is read.
func polyDivReal(f, g []fpr) {
	fre, fim := halves(f)
	one := fprOf(1)
	for i := range fre {
		r := one.div(g[i])
		fre[i], fim[i] = fre[i].mul(r), fim[i].mul(r)
	}
}

// polyInvNorm sets d to 1/(f·adj(f) + g·adj(g)), which is its own adjoint: only the real half is written.
func polyInvNorm(d, f, g []fpr) {
	fre, fim := halves(f)
	gre, gim := halves(g)
	one := fprOf(1)
	for i := range fre {
		n := fre[i].mul(fre[i]).add(fim[i].mul(fim[i]))
		n = n.add(gre[i].mul(gre[i]).add(gim[i].mul(gim[i])))
		d[i] = one.div(n)
	}
}

// polyAddMulAdjoints sets d to F·adj(f) + G·adj(g).
func polyAddMulAdjoints(d, F, G, f, g []fpr) {
	dre, dim := halves(d)
	Fre, Fim := halves(F)
	Gre, Gim := halves(G)
	fre, fim := halves(f)
	gre, gim := halves(g)
	for i := range dre {
		are, aim := mulComplex(Fre[i], Fim[i], fre[i], fim[i].neg())
		bre, bim := mulComplex(Gre[i], Gim[i], gre[i], gim[i].neg())
		dre[i], dim[i] = are.add(bre), aim.add(bim)
	}
}

// polyLDL replaces the self-adjoint matrix ((g00, g01), (adj g01, g11)) = L·D·adj(L): g01 by the element l10 of L, g11 by d11
// of D; d00 is g00 (Falcon spec 3.8.3, algorithm 8).
func polyLDL(g00, g01, g11 []fpr) {
	are, aim := halves(g00)
	bre, bim := halves(g01)
	dre, dim := halves(g11)
	one := fprOf(1)
	for i := range are {
		// mu = g01/g00
		r := one.div(are[i].mul(are[i]).add(aim[i].mul(aim[i])))
		mre, mim := mulComplex(bre[i], bim[i], are[i].mul(r), aim[i].neg().mul(r))
		xre, xim := mulComplex(mre, mim, bre[i], bim[i].neg())
		dre[i], dim[i] = dre[i].sub(xre), dim[i].sub(xim)
		bre[i], bim[i] = mre, mim.neg()
	}
}
