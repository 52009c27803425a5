package falcon

import (
	"math"
	"math/big"
	"math/bits"
	"math/rand/v2"
	"testing"
)

// sineCosine is exact to far more than 100 bits.
func sineCosine(x *big.Float) (sin, cos *big.Float) {
	const precision = 256
	sum := [2]*big.Float{new(big.Float).SetPrec(precision), new(big.Float).SetPrec(precision)} // of even and odd powers
	term := new(big.Float).SetPrec(precision).SetInt64(1)
	for i := range 60 {
		if i&2 == 0 {
			sum[i&1].Add(sum[i&1], term)
		} else {
			sum[i&1].Sub(sum[i&1], term)
		}
		term.Mul(term, x)
		term.Quo(term, new(big.Float).SetInt64(int64(i+1)))
	}
	return sum[1], sum[0]
}

// Each root has the values nearest to the true ones: fftRoots[m+i], 0 <= i < m, is exp(iπ(1/4 + rev(i))/m), where rev reverses
// the bits of i, as many as m has.
func TestFFTRootsAreRoundedCorrectly(t *testing.T) {
	t.Parallel()
	const digits = "3.14159265358979323846264338327950288419716939937510582097494459230781640628620899"
	pi, _, err := big.ParseFloat(digits, 10, 256, big.ToNearestEven)
	if err != nil {
		t.Fatal(err)
	}
	for m := 1; m <= 256; m *= 2 {
		for i := range m {
			reversed := uint(bits.Reverse(uint(i))) >> (bits.UintSize - bits.TrailingZeros(uint(m)))
			angle := new(big.Float).SetPrec(256).SetFloat64((0.25 + float64(reversed)) / float64(m))
			sin, cos := sineCosine(angle.Mul(angle, pi))
			re, _ := cos.Float64()
			im, _ := sin.Float64()
			if got := fftRoots[m+i]; got != [2]float64{re, im} {
				t.Errorf("fftRoots[%d] = {%x, %x}, want {%x, %x}", m+i, got[0], got[1], re, im)
			}
		}
	}
}

func float(x fpr) float64 { return math.Float64frombits(bitsOf(x)) }

func randomInts(r *rand.Rand, n, bound int) []int32 {
	a := make([]int32, n)
	for i := range a {
		a[i] = int32(r.IntN(2*bound+1) - bound)
	}
	return a
}

func polyOf(a []int32) []fpr {
	f := make([]fpr, len(a))
	polyInt(f, a)
	return f
}

// inDegrees runs a test at each degree.
func inDegrees(t *testing.T, test func(t *testing.T, r *rand.Rand, n int)) {
	for n := 2; n <= 1024; n *= 2 {
		test(t, rand.New(rand.NewPCG(uint64(n), 1)), n)
	}
}

func wantInts(t *testing.T, what string, f []fpr, want []int64) {
	t.Helper()
	for i, x := range f {
		if math.Abs(float(x)-float64(want[i])) > 1e-3 || x.rint() != want[i] {
			t.Fatalf("%s, degree %d: coefficient %d is %g, want %d", what, len(f), i, float(x), want[i])
		}
	}
}

func int64s(a []int32) []int64 {
	w := make([]int64, len(a))
	for i, x := range a {
		w[i] = int64(x)
	}
	return w
}

// product is a·b modulo x^n + 1.
func product(a, b []int32) []int64 {
	n := len(a)
	c := make([]int64, n)
	for i, x := range a {
		for j, y := range b {
			if i+j < n {
				c[i+j] += int64(x) * int64(y)
			} else {
				c[i+j-n] -= int64(x) * int64(y)
			}
		}
	}
	return c
}

func adjoint(a []int32) []int32 {
	b := make([]int32, len(a))
	b[0] = a[0]
	for i := 1; i < len(a); i++ {
		b[len(a)-i] = -a[i]
	}
	return b
}

// A transformed polynomial has its values at the roots of x^n + 1 that the order names.
func TestFFTEvaluates(t *testing.T) {
	t.Parallel()
	inDegrees(t, func(t *testing.T, r *rand.Rand, n int) {
		a := randomInts(r, n, 100)
		f := polyOf(a)
		fft(f)
		hn := n / 2
		seen := map[int]bool{}
		for i := range hn {
			// The root of index i, as a power of exp(iπ/n): that of half the degree, and the sign that the last bit says.
			power, m := n/2, 1 // i
			for b := hn / 2; b > 0; b /= 2 {
				power /= 2
				if i&b != 0 {
					power += n
				}
				m *= 2
			}
			power %= 2 * n
			if power%2 != 1 {
				t.Fatalf("degree %d: index %d is not a root", n, i)
			}
			seen[min(power, 2*n-power)] = true
			var re, im float64
			for j, c := range a {
				sin, cos := math.Sincos(math.Pi * float64(power*j%(2*n)) / float64(n))
				re, im = re+float64(c)*cos, im+float64(c)*sin
			}
			if math.Hypot(re-float(f[i]), im-float(f[hn+i])) > 1e-6 {
				t.Fatalf("degree %d: f at root %d is %g%+gi, want %g%+gi", n, i, float(f[i]), float(f[hn+i]), re, im)
			}
		}
		if len(seen) != hn {
			t.Errorf("degree %d: %d different roots, want %d", n, len(seen), hn)
		}
	})
}

func TestFFTRoundTrip(t *testing.T) {
	t.Parallel()
	inDegrees(t, func(t *testing.T, r *rand.Rand, n int) {
		a := randomInts(r, n, 1<<24)
		f := polyOf(a)
		fft(f)
		ifft(f)
		wantInts(t, "fft and ifft", f, int64s(a))
	})
}

func TestPolyArithmetic(t *testing.T) {
	t.Parallel()
	inDegrees(t, func(t *testing.T, r *rand.Rand, n int) {
		a, b := randomInts(r, n, 20000), randomInts(r, n, 20000)
		transformed := func() (f, g []fpr) {
			f, g = polyOf(a), polyOf(b)
			fft(f)
			fft(g)
			return f, g
		}
		f, g := transformed()
		polyMul(f, g)
		ifft(f)
		wantInts(t, "polyMul", f, product(a, b))

		f, g = transformed()
		polyMulAdjoint(f, g)
		ifft(f)
		wantInts(t, "polyMulAdjoint", f, product(a, adjoint(b)))

		f, _ = transformed()
		polyAdjoint(f)
		ifft(f)
		wantInts(t, "polyAdjoint", f, int64s(adjoint(a)))

		f, g = transformed()
		polyMulSelfAdjoint(f)
		norm := make([]fpr, n)
		copy(norm, f)
		polyMulReal(f, norm) // the norm is real, so this squares it
		polyDivReal(f, norm)
		ifft(f)
		wantInts(t, "polyMulSelfAdjoint, polyMulReal, polyDivReal", f, product(a, adjoint(a)))

		f, _ = transformed()
		inverse := make([]fpr, n/2)
		polyInvNorm(inverse, f, g)
		sum, h := make([]fpr, n), make([]fpr, n)
		polyAddMulAdjoints(sum, f, g, f, g)
		polyInt(h, a)
		fft(h)
		polyMul(h, sum)
		polyMulReal(h, inverse)
		ifft(h)
		wantInts(t, "polyInvNorm, polyAddMulAdjoints", h, int64s(a))

		f, g = polyOf(a), polyOf(b)
		polySub(f, g)
		polyNeg(f)
		polyAdd(f, polyOf(a))
		polyScale(f, fprConst(0.5))
		polyScale(f, fprConst(2))
		wantInts(t, "polySub, polyNeg, polyAdd, polyScale", f, int64s(b))
	})
}

// Split gives the even and the odd coefficients, merge puts them together.
func TestFFTSplitAndMerge(t *testing.T) {
	t.Parallel()
	inDegrees(t, func(t *testing.T, r *rand.Rand, n int) {
		a := randomInts(r, n, 20000)
		f := polyOf(a)
		fft(f)
		f0, f1 := make([]fpr, n/2), make([]fpr, n/2)
		fftSplit(f0, f1, f)
		clear(f)
		fftMerge(f, f0, f1)
		ifft(f)
		wantInts(t, "fftMerge", f, int64s(a))
		if n > 2 {
			ifft(f0)
			ifft(f1)
		}
		even, odd := make([]int64, n/2), make([]int64, n/2)
		for i := range even {
			even[i], odd[i] = int64(a[2*i]), int64(a[2*i+1])
		}
		wantInts(t, "fftSplit, even", f0, even)
		wantInts(t, "fftSplit, odd", f1, odd)
	})
}

// L·D·adj(L) is the matrix again.
func TestPolyLDL(t *testing.T) {
	t.Parallel()
	inDegrees(t, func(t *testing.T, r *rand.Rand, n int) {
		var b [2][2][]fpr
		var c [2][2][]int32
		for i := range b {
			for j := range b[i] {
				c[i][j] = randomInts(r, n, 100)
				b[i][j] = polyOf(c[i][j])
				fft(b[i][j])
			}
		}
		g00, g01, g11 := make([]fpr, n), make([]fpr, n), make([]fpr, n)
		polyAddMulAdjoints(g00, b[0][0], b[0][1], b[0][0], b[0][1])
		polyAddMulAdjoints(g01, b[0][0], b[0][1], b[1][0], b[1][1])
		polyAddMulAdjoints(g11, b[1][0], b[1][1], b[1][0], b[1][1])
		l, d := append([]fpr{}, g01...), append([]fpr{}, g11...)
		polyLDL(g00, l, d)

		x := append([]fpr{}, g00...)
		polyMul(x, l) // g10 = l10·d00
		polyAdjoint(x)
		polySub(x, g01)
		y := append([]fpr{}, l...)
		polyMulSelfAdjoint(y)
		polyMul(y, g00)
		polyAdd(y, d)
		polySub(y, g11)
		zero := make([]int64, n)
		ifft(x)
		ifft(y)
		wantInts(t, "LDL, g01", x, zero)
		wantInts(t, "LDL, g11", y, zero)
	})
}
