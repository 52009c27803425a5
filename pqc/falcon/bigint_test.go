package falcon

import (
	"math/big"
	"math/bits"
	"math/rand/v2"
	"testing"

	"pqlab/internal/race"
)

// testRand is a source of the same numbers at each run.
func testRand(name string) *rand.Rand {
	var seed [32]byte
	copy(seed[:], name)
	return rand.New(rand.NewChaCha8(seed))
}

// bigOf is the number in x, without or with sign.
func bigOf(x []uint64, signed bool) *big.Int {
	n := new(big.Int)
	for i := len(x) - 1; i >= 0; i-- {
		n.Lsh(n, 64)
		n.Or(n, new(big.Int).SetUint64(x[i]))
	}
	if signed && x[len(x)-1]>>63 == 1 {
		n.Sub(n, new(big.Int).Lsh(big.NewInt(1), uint(64*len(x))))
	}
	return n
}

// setBig sets x to n modulo 2^(64·len(x)).
func setBig(x []uint64, n *big.Int) {
	rest := new(big.Int).Mod(n, new(big.Int).Lsh(big.NewInt(1), uint(64*len(x))))
	word := new(big.Int)
	for i := range x {
		x[i] = word.And(rest, new(big.Int).SetUint64(1<<64-1)).Uint64()
		rest.Rsh(rest, 64)
	}
}

// randomWord prefers words at which carries go wrong.
func randomWord(r *rand.Rand) uint64 {
	switch r.IntN(6) {
	case 0:
		return 0
	case 1:
		return ^uint64(0)
	case 2:
		return 1 << r.IntN(64)
	default:
		return r.Uint64()
	}
}

func randomWords(r *rand.Rand, n int) []uint64 {
	x := make([]uint64, n)
	for i := range x {
		x[i] = randomWord(r)
	}
	return x
}

func TestBigArithmetic(t *testing.T) {
	t.Parallel()
	r := testRand(t.Name())
	for range 5000 {
		n := 1 + r.IntN(6)
		x, y, word := randomWords(r, n), randomWords(r, n), randomWord(r)
		X, Y, W := bigOf(x, false), bigOf(y, false), new(big.Int).SetUint64(word)
		modulus := new(big.Int).Lsh(big.NewInt(1), uint(64*n))
		count := uint(r.IntN(64))
		mask := -uint64(r.IntN(2))
		for _, test := range []struct {
			name string
			run  func(x []uint64)
			want *big.Int
		}{
			{"addMul", func(x []uint64) {
				carry := addMul(x, y, word)
				want := new(big.Int).Mul(Y, W)
				want.Add(want, X).Rsh(want, uint(64*n))
				if want.Cmp(new(big.Int).SetUint64(carry)) != 0 {
					t.Fatalf("addMul(%x, %x, %x) carries %x, not %x", X, Y, W, carry, want)
				}
			}, new(big.Int).Add(X, new(big.Int).Mul(Y, W))},
			{"mulSmall", func(x []uint64) { mulSmall(x, word) }, new(big.Int).Mul(X, W)},
			{"subSmall", func(x []uint64) { subSmall(x, word) }, new(big.Int).Sub(X, W)},
			{"subIf", func(x []uint64) { subIf(x, y, mask) }, new(big.Int).Sub(X, new(big.Int).Mul(Y, new(big.Int).SetUint64(mask&1)))},
			{"negateIf", func(x []uint64) { negateIf(x, mask) }, new(big.Int).Mul(X, big.NewInt(1-2*int64(mask&1)))},
			{"shiftLeft", func(x []uint64) { shiftLeft(x, count) }, new(big.Int).Lsh(X, count)},
		} {
			z := append([]uint64(nil), x...)
			test.run(z)
			if want := test.want.Mod(test.want, modulus); bigOf(z, false).Cmp(want) != 0 {
				t.Fatalf("%s of %x, %x, %x, %d, %d is %x, not %x", test.name, X, Y, W, count, mask&1, bigOf(z, false), want)
			}
		}
	}
}

func TestCentreBig(t *testing.T) {
	t.Parallel()
	r := testRand(t.Name())
	for range 5000 {
		n := 1 + r.IntN(4)
		modulus := randomWords(r, n)
		modulus[0] |= 1
		M := bigOf(modulus, false)
		// Anything in the range, and what is next to its half and to its ends.
		half := new(big.Int).Rsh(M, 1)
		X := []*big.Int{
			new(big.Int).Mod(bigOf(randomWords(r, n), false), M), half, new(big.Int).Add(half, big.NewInt(1)),
			new(big.Int).Sub(M, big.NewInt(1)), new(big.Int),
		}[r.IntN(5)]
		if X.Cmp(M) >= 0 {
			continue // the modulus 1
		}
		x := make([]uint64, n)
		setBig(x, X)
		centreBig(x, modulus)
		want := new(big.Int).Set(X)
		if X.Cmp(half) > 0 {
			want.Sub(want, M)
		}
		want.Mod(want, new(big.Int).Lsh(big.NewInt(1), uint(64*n)))
		if bigOf(x, false).Cmp(want) != 0 {
			t.Fatalf("%x centred modulo %x is %x, not %x", X, M, bigOf(x, false), want)
		}
	}
}

func TestBezout(t *testing.T) {
	t.Parallel()
	race.Skip(t)
	r := testRand(t.Name())
	check := func(X, Y *big.Int, words int) {
		t.Helper()
		x, y, u, v := make([]uint64, words), make([]uint64, words), make([]uint64, words), make([]uint64, words)
		setBig(x, X)
		setBig(y, Y)
		good := bezout(u, v, x, y, make([]uint64, bezoutScratch(words)))
		if want := new(big.Int).GCD(nil, nil, X, Y).Cmp(big.NewInt(1)) == 0; good != want {
			t.Fatalf("bezout(%d, %d) of %d words says %v", X, Y, words, good)
		}
		if !good {
			return
		}
		U, V := bigOf(u, true), bigOf(v, true)
		sum := new(big.Int).Mul(U, X)
		sum.Sub(sum, new(big.Int).Mul(V, Y))
		if sum.Cmp(big.NewInt(1)) != 0 || U.Sign() < 0 || U.Cmp(Y) > 0 {
			t.Fatalf("bezout(%d, %d) of %d words is %d, %d", X, Y, words, U, V)
		}
	}
	for X := int64(1); X < 64; X += 2 {
		for Y := int64(1); Y < 64; Y += 2 {
			check(big.NewInt(X), big.NewInt(Y), 1)
			check(big.NewInt(X), big.NewInt(Y), 3)
		}
	}
	random := func(words int) *big.Int {
		x := randomWords(r, words)
		x[0] |= 1
		x[words-1] &= 1<<63 - 1
		n := bigOf(x, false)
		if r.IntN(3) == 0 { // short
			n.Rsh(n, uint(r.IntN(64*words)))
		}
		return n.SetBit(n, 0, 1)
	}
	for words := range 12 {
		for range 400 {
			words := words + 1
			X, Y := random(words), random(words)
			check(X, Y, words)
			// A divisor in common.
			if words > 1 {
				d := new(big.Int).SetBit(big.NewInt(int64(r.IntN(1<<30))), 0, 1)
				check(X.Mul(d, X.Rsh(X, 64).SetBit(X, 0, 1)), Y.Mul(d, Y.Rsh(Y, 64).SetBit(Y, 0, 1)), words)
			}
		}
	}
	// Consecutive Fibonacci numbers and Mersenne numbers, as long as any at degree 1024.
	const words = 103
	a, b := big.NewInt(1), big.NewInt(1)
	for a.BitLen() < 64*words-2 {
		a, b = b, a.Add(a, b)
		if a.Bit(0) == 1 && b.Bit(0) == 1 {
			if a.BitLen() > 6000 || a.BitLen()%7 == 0 {
				check(a, b, words)
				check(b, a, words)
			}
		}
	}
	mersenne := func(n uint) *big.Int {
		x := new(big.Int).Lsh(big.NewInt(1), n)
		return x.Sub(x, big.NewInt(1))
	}
	check(mersenne(64*words-1), mersenne(64*words-2), words)
	check(mersenne(64*words-2), mersenne(64*words-1), words)
	check(big.NewInt(1), mersenne(64*words-1), words)
	check(mersenne(64*words-1), big.NewInt(3), words)
	for range 50 {
		check(random(words), random(words), words)
	}
}

// Numbers that make the binary GCD compare ends that are equal: their difference is in the middle, where it does not look.
func TestBezoutOfNumbersThatDifferInTheMiddle(t *testing.T) {
	t.Parallel()
	r := testRand(t.Name())
	for range 2000 {
		words := 3 + r.IntN(8)
		x := randomWords(r, words)
		x[0] |= 1
		x[words-1] = 1 << 62
		y := append([]uint64(nil), x...)
		y[1+r.IntN(words-2)] ^= 1 << r.IntN(64)
		u, v := make([]uint64, words), make([]uint64, words)
		X, Y := bigOf(x, false), bigOf(y, false)
		good := bezout(u, v, x, y, make([]uint64, bezoutScratch(words)))
		if good != (new(big.Int).GCD(nil, nil, X, Y).BitLen() == 1) {
			t.Fatalf("bezout(%x, %x) says %v", X, Y, good)
		}
		if !good {
			continue
		}
		sum := new(big.Int).Mul(bigOf(u, true), X)
		if sum.Sub(sum, new(big.Int).Mul(bigOf(v, true), Y)); sum.Cmp(big.NewInt(1)) != 0 {
			t.Fatalf("bezout(%x, %x) gives %x", X, Y, sum)
		}
	}
}

func BenchmarkBezout(b *testing.B) {
	r := testRand(b.Name())
	const words = 103
	x, y, u, v := randomWords(r, words), randomWords(r, words), make([]uint64, words), make([]uint64, words)
	for _, z := range [][]uint64{x, y} {
		z[0] |= 1
		z[words-1] &= 1<<(bits.UintSize-1) - 1
	}
	scratch := make([]uint64, bezoutScratch(words))
	for b.Loop() {
		bezout(u, v, x, y, scratch)
	}
}
