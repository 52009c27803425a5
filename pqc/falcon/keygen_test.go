package falcon

import (
	"crypto/sha3"
	"encoding/binary"
	"fmt"
	"math/big"
	"testing"

	"pqlab/internal/race"
)

// testSHAKE is the i-th source of a test, the same one at each run.
func testSHAKE(name string, i int) *sha3.SHAKE {
	rng := sha3.NewSHAKE256()
	fmt.Fprintf(rng, "%s %d", name, i)
	return rng
}

// At every degree, the toy ones too.
func TestNTRUGen(t *testing.T) {
	t.Parallel()
	for logn := uint(1); logn <= 10; logn++ {
		t.Run(fmt.Sprint(1<<logn), func(t *testing.T) {
			t.Parallel()
			keys := min(200, 20+2048>>logn)
			if testing.Short() || race.Enabled {
				keys = 5
			}
			for i := range keys {
				f, g, F, G := ntruGen(logn, testSHAKE(t.Name(), i))
				if !productsDifferByQ(f, g, F, G) {
					t.Fatalf("key %d: fG - gF is not q", i)
				}
				norm, most := 0, 0
				for j := range f {
					norm += int(f[j])*int(f[j]) + int(g[j])*int(g[j])
					most = max(most, int(f[j]), -int(f[j]), int(g[j]), -int(g[j]))
					if F[j] == -128 || G[j] == -128 {
						t.Fatalf("key %d: F or G cannot be encoded", i)
					}
				}
				if norm > 16822 || most > int(maxSmall[logn]) {
					t.Fatalf("key %d: f and g have norm %d and maximum %d", i, norm, most)
				}
			}
		})
	}
}

// The vectors' bits of f and g, where the encoding has them.
func TestMaxSmall(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, d Degree) {
		if int(maxSmall[d.logn()]) != 1<<(d.smallBits()-1)-1 {
			t.Fatalf("maxSmall is %d, the encoding has %d bits", maxSmall[d.logn()], d.smallBits())
		}
	})
}

func TestIsShort(t *testing.T) {
	t.Parallel()
	for _, test := range [][2][]int8{ // the first coefficients of f and g
		{{1}, {}},
		{{31}, {31}},
		{{-31}, {-31}},
		{{32}, {}},
		{{0, -32}, {}},
		{{}, {0, 0, 32}},
		{{}, {-32}},
		{{}, {-128}},
		{repeatInt8(31, 17), {21, 6, 2, 2}},    // 16822
		{repeatInt8(31, 17), {21, 6, 2, 2, 1}}, // 16823
		{repeatInt8(-31, 17), {-22, -2}},       // 16825
		{repeatInt8(-31, 256), repeatInt8(31, 256)},
		{repeatInt8(4, 512), repeatInt8(-4, 512)},
		{repeatInt8(4, 512), append(repeatInt8(-4, 511), 21)},
		{repeatInt8(4, 512), append(repeatInt8(-4, 511), 22)},
	} {
		f, g := make([]int8, 512), make([]int8, 512)
		copy(f, test[0])
		copy(g, test[1])
		norm, most := 0, 0
		for i := range f {
			norm += int(f[i])*int(f[i]) + int(g[i])*int(g[i])
			most = max(most, int(f[i]), -int(f[i]), int(g[i]), -int(g[i]))
		}
		if want := norm <= 16822 && most <= 31; isShort(f, g, 9) != want {
			t.Errorf("isShort with norm %d and maximum %d is %v", norm, most, !want)
		}
	}
}

func repeatInt8(x int8, n int) []int8 {
	all := make([]int8, n)
	for i := range all {
		all[i] = x
	}
	return all
}

// TestGaussTable computes the table from its definition.
func TestGaussTable(t *testing.T) {
	t.Parallel()
	const precision = 400
	number := func(x int64) *big.Float { return new(big.Float).SetPrec(precision).SetInt64(x) }
	// variance = 1.17^2·q/2048 = 13689·12289/20480000; rho(x) = exp(-x^2/(2·variance)) = base^(x^2)
	exponent := new(big.Float).Quo(number(-20480000/2), number(13689*12289))
	base, term := number(1), number(1)
	for i := int64(1); i < 200; i++ {
		term.Mul(term, exponent)
		term.Quo(term, number(i))
		base.Add(base, term)
	}
	rho := func(x int) *big.Float {
		y := number(1)
		for range x * x {
			y.Mul(y, base)
		}
		return y
	}
	const last = 60
	var tails [last + 1]*big.Float // of the numbers greater than the index
	tails[last] = number(0)
	for x := last; x > 0; x-- {
		tails[x-1] = new(big.Float).Add(tails[x], rho(x))
	}
	all := new(big.Float).Add(number(1), new(big.Float).Mul(number(2), tails[0]))
	scale := new(big.Float).SetMantExp(number(1), 63)
	round := func(x *big.Float) uint64 {
		n, _ := x.Add(x, big.NewFloat(0.5)).Uint64()
		return n
	}
	if want := round(new(big.Float).Quo(scale, all)); want != gaussTable[0] {
		t.Errorf("the probability of 0 is %d, not %d", gaussTable[0], want)
	}
	for i := 1; i < len(gaussTable); i++ {
		want := new(big.Float).Quo(tails[i], tails[0])
		if want := round(want.Mul(want, scale)); want != gaussTable[i] {
			t.Errorf("element %d is %d, not %d", i, gaussTable[i], want)
		}
	}
}

// sample is what the table says, at the bounds of all of its elements.
func TestGaussSample(t *testing.T) {
	t.Parallel()
	const sign, ones = 1 << 63, 1<<63 - 1
	check := func(first, second uint64, want int32) {
		t.Helper()
		var both [16]byte
		binary.LittleEndian.PutUint64(both[:], first)
		binary.LittleEndian.PutUint64(both[8:], second)
		source := gaussSource{rest: both[:]}
		if got := source.sample(); got != want || len(source.rest) != 0 {
			t.Errorf("sample of %x, %x is %d, not %d", first, second, got, want)
		}
	}
	for _, second := range []uint64{0, ones, sign, sign | ones} {
		for _, first := range []uint64{0, gaussTable[0] - 1} {
			check(first, second, 0)
			check(first|sign, second, 0)
		}
	}
	for _, first := range []uint64{gaussTable[0], ones} {
		check(first, ones, 1)
		check(first|sign, ones|sign, -1)
		for i, bound := range gaussTable[1:] {
			check(first, bound, int32(i)+1)
			check(first|sign, bound|sign, -int32(i)-1)
			if bound > 0 {
				check(first, bound-1, int32(i)+2)
			}
		}
	}
}

// The coefficients have the standard deviation of the specification, at all degrees, and an odd sum.
func TestGaussPolynomial(t *testing.T) {
	t.Parallel()
	race.Skip(t)
	for logn := uint(2); logn <= 10; logn++ {
		n := 1 << logn
		source := &gaussSource{rng: testSHAKE(t.Name(), int(logn))}
		f := make([]int8, n)
		var squares, sum, count float64
		for range 16384 / n {
			source.polynomial(f, logn)
			parity := 0
			for _, x := range f {
				parity += int(x)
				sum += float64(x)
				squares += float64(x) * float64(x)
				count++
			}
			if parity&1 == 0 {
				t.Fatalf("degree %d: an even sum", n)
			}
		}
		want := 1.17 * 1.17 * q / 2 / float64(n)
		// Of 16384 the mean square deviates by 1.1 % and the sum by 128 standard deviations of one, or less.
		if got := squares / count; n > 4 && (got < 0.95*want || got > 1.05*want) {
			t.Errorf("degree %d: variance %.3f, not %.3f", n, got, want)
		}
		if sum*sum > 25*want*count {
			t.Errorf("degree %d: mean %.3f", n, sum/count)
		}
	}
}

func BenchmarkNTRUGen(b *testing.B) {
	for _, d := range degrees {
		b.Run(fmt.Sprint(int(d)), func(b *testing.B) {
			i := 0
			for b.Loop() {
				ntruGen(d.logn(), testSHAKE(b.Name(), i))
				i++
			}
		})
	}
}

// BenchmarkSolve is the NTRU equation alone, without the choice of f and g.
func BenchmarkSolve(b *testing.B) {
	for _, d := range degrees {
		b.Run(fmt.Sprint(int(d)), func(b *testing.B) {
			f, g, F, G := ntruGen(d.logn(), testSHAKE(b.Name(), 0))
			s := newSolver(d.logn())
			for b.Loop() {
				if !s.solve(F, G, f, g) {
					b.Fatal("not solved")
				}
			}
		})
	}
}
