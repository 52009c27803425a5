package falcon

import (
	"math"
	"math/rand/v2"
	"testing"
)

// In the native build these compare soft with the processor by way of fpr, in the emulated one soft with Go's float64.

func bitsOf(x fpr) uint64 {
	if s, ok := any(x).(soft); ok {
		return uint64(s)
	}
	return math.Float64bits(float64(x))
}

func softConst(x float64) soft { return soft(math.Float64bits(x)) }

// softOperands are edges and random numbers that a result can be had from without overflow.
func softOperands(r *rand.Rand) []float64 {
	xs := []float64{
		0, 0.5, 1, 1.5, 2, 2.5, 3.5, 1023.5, 1024.5, 0x1p-300, 0x1p300, 0x1p52, 0x1p53, 0x1p52 + 1, 0x1p53 - 1, 0x1p52 - 0.5,
		0x1p51 + 0.5, 0x1p62, 0x1p63 - 1024, 0x1.fffffffffffffp0, 0x1.0000000000001p0, 0x1.fffffffffffffp-2, 0x1p-54, 0x1p-53,
		0x1.8p-53, 0x1.0000000000001p-53, 0x1p-59, 0x1p-60, 0x1p-61, 0x1.5555555555555p-1, math.Pi, math.Ln2, 12289, 0x1p-63, 0x1p-64, 0x1p-65,
	}
	for range 120 {
		x := math.Float64frombits(r.Uint64()&softFraction | uint64(1023+r.IntN(140)-70)<<52)
		few := math.Float64frombits(r.Uint64()&(softFraction<<uint(r.IntN(53)))&softFraction | uint64(1023+r.IntN(8)-4)<<52)
		xs = append(xs, x, few, float64(r.IntN(100000)), float64(r.IntN(1000))+0.5)
	}
	for _, x := range xs {
		xs = append(xs, -x)
	}
	return append(xs, math.Copysign(0, -1))
}

func TestSoftIsFloat64(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	xs := softOperands(r)
	same := func(op string, x, y float64, got soft, want float64) {
		if uint64(got) != math.Float64bits(want) {
			t.Fatalf("%x %s %x = %x (%#x), want %x", x, op, y, math.Float64frombits(uint64(got)), uint64(got), want)
		}
	}
	for _, x := range xs {
		a := softConst(x)
		same("neg", x, 0, a.neg(), -x)
		same("half", x, 0, a.half(), float64(x*0.5))
		if x >= 0 {
			same("sqrt", x, 0, a.sqrt(), math.Sqrt(x))
		}
		if math.Abs(x) < 0x1p63 {
			for _, f := range []struct {
				op   string
				got  int64
				want float64
			}{{"rint", a.rint(), math.RoundToEven(x)}, {"floor", a.floor(), math.Floor(x)}, {"trunc", a.trunc(), math.Trunc(x)}} {
				if f.got != int64(f.want) {
					t.Fatalf("%s %x = %d, want %d", f.op, x, f.got, int64(f.want))
				}
			}
		}
		for _, y := range xs {
			b := softConst(y)
			same("+", x, y, a.add(b), x+y)
			same("-", x, y, a.sub(b), x-y)
			same("*", x, y, a.mul(b), float64(x*y))
			if y != 0 {
				same("/", x, y, a.div(b), x/y)
			}
			if a.lt(b) != (x < y) {
				t.Fatalf("%x < %x: %v", x, y, a.lt(b))
			}
		}
	}
	for _, x := range []float64{0x1p-1022, 0x1.8p-1022, 0x1p-1021, -0x1.8p-1022} {
		want := x / 2
		if math.Abs(want) < 0x1p-1022 {
			want = math.Copysign(0, x)
		}
		same("half", x, 0, softConst(x).half(), want)
		same("*", x, 0.5, softConst(x).mul(softConst(0.5)), want)
	}
}

func TestSoftNeighbours(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4))
	for range 200000 {
		// Numbers that cancel, or differ in exponent by about as much as they have bits.
		x := math.Float64frombits(r.Uint64()&(1<<63|softFraction) | 1023<<52)
		y := math.Float64frombits(math.Float64bits(-x) + uint64(r.IntN(5)) - 2)
		z := math.Float64frombits(r.Uint64()&(1<<63|softFraction) | uint64(1023-48-r.IntN(16))<<52)
		for _, v := range [][2]float64{{x, y}, {y, x}, {x, z}, {z, x}, {math.Trunc(x), z}} {
			if got, want := softConst(v[0]).add(softConst(v[1])), softConst(v[0]+v[1]); got != want {
				t.Fatalf("%x + %x = %#x, want %#x", v[0], v[1], uint64(got), uint64(want))
			}
		}
	}
}

func TestSoftOfInteger(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(5, 6))
	is := []int64{0, 1, -1, 1 << 53, 1<<53 + 1, 1<<54 + 2, 1<<54 + 6, math.MaxInt64, math.MinInt64, -math.MaxInt64}
	for range 10000 {
		is = append(is, int64(r.Uint64())>>r.IntN(64))
	}
	for _, i := range is {
		if got, want := softOf(i), softConst(float64(i)); got != want {
			t.Fatalf("softOf(%d) = %#x, want %#x", i, uint64(got), uint64(want))
		}
	}
}

// Whole polynomials come out with the same bits, so no product of fpr was fused with a sum.
func TestFPRIsSoft(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(7, 8))
	for range 20000 {
		var x [4]float64
		var f [4]fpr
		var s [4]soft
		for i := range x {
			x[i] = r.NormFloat64()
			f[i], s[i] = fprConst(x[i]), softConst(x[i])
		}
		re, im := mulComplex(f[0], f[1], f[2], f[3])
		sre, sim := s[0].mul(s[2]).sub(s[1].mul(s[3])), s[0].mul(s[3]).add(s[1].mul(s[2]))
		if bitsOf(re) != uint64(sre) || bitsOf(im) != uint64(sim) {
			t.Fatalf("mulComplex(%x) = %#x, %#x, want %#x, %#x", x, bitsOf(re), bitsOf(im), uint64(sre), uint64(sim))
		}
		d := [2]fpr{f[0], f[1]}
		polyMulSelfAdjoint(d[:])
		if want := s[0].mul(s[0]).add(s[1].mul(s[1])); bitsOf(d[0]) != uint64(want) {
			t.Fatalf("|%x|^2 = %#x, want %#x", x[:2], bitsOf(d[0]), uint64(want))
		}
	}
}
