package falcon

import (
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"testing"
)

// bigPoly is the n numbers of x, stride words apart, of which words count.
func bigPoly(x []uint64, n, words, stride int) []*big.Int {
	p := make([]*big.Int, n)
	for i := range p {
		p[i] = bigOf(x[i*stride:][:words], true)
	}
	return p
}

// mulBig is a·b modulo x^n + 1.
func mulBig(a, b []*big.Int) []*big.Int {
	n := len(a)
	p := make([]*big.Int, n)
	for i := range p {
		p[i] = new(big.Int)
	}
	product := new(big.Int)
	for i := range a {
		for j := range b {
			product.Mul(a[i], b[j])
			if i+j < n {
				p[i+j].Add(p[i+j], product)
			} else {
				p[i+j-n].Sub(p[i+j-n], product)
			}
		}
	}
	return p
}

// shortPair is f and g as key generation takes them, of a degree at which products in math/big are quick.
func shortPair(logn uint, seed string, i int) (f, g []int8) {
	f, g, _, _ = ntruGen(logn, testSHAKE(seed, i))
	return f, g
}

func (s *solver) start(f, g []int8) {
	n := len(f)
	for i := range f {
		s.small[0][i], s.small[0][n+i] = uint64(int64(f[i])), uint64(int64(g[i]))
	}
}

func TestFieldNorms(t *testing.T) {
	t.Parallel()
	for logn := uint(1); logn <= 7; logn++ {
		s := newSolver(logn)
		f, g := shortPair(logn, t.Name(), int(logn))
		s.start(f, g)
		for depth := range s.logn {
			n, words, next := s.size(depth), smallWords(depth), smallWords(depth+1)
			s.fieldNorms(depth)
			for of := range 2 {
				a := bigPoly(s.small[depth][of*n*words:], n, words, words)
				b := make([]*big.Int, n) // a(-x)
				for i := range a {
					b[i] = new(big.Int).Set(a[i])
					if i&1 == 1 {
						b[i].Neg(b[i])
					}
				}
				want, got := mulBig(a, b), bigPoly(s.small[depth+1][of*n/2*next:], n/2, next, next)
				for i := range want {
					if i&1 == 0 && want[i].Cmp(got[i/2]) != 0 || i&1 == 1 && want[i].Sign() != 0 {
						t.Fatalf("degree %d, depth %d: coefficient %d of the norm is wrong", 1<<logn, depth, i)
					}
				}
			}
		}
	}
}

// At every depth fG - gF = q, before F and G are reduced and after, and then they are short.
func TestSolutionAtEachDepth(t *testing.T) {
	t.Parallel()
	for logn := uint(1); logn <= 8; logn++ {
		s := newSolver(logn)
		f, g := shortPair(logn, t.Name(), int(logn))
		s.start(f, g)
		for depth := range s.logn {
			s.fieldNorms(depth)
		}
		check := func(depth, words int) (most int) {
			t.Helper()
			n, small := s.size(depth), smallWords(depth)
			f, g := bigPoly(s.small[depth], n, small, small), bigPoly(s.small[depth][n*small:], n, small, small)
			F, G := bigPoly(s.large, n, words, s.stride), bigPoly(s.large[n*s.stride:], n, words, s.stride)
			a, b := mulBig(f, G), mulBig(g, F)
			for i := range a {
				want := int64(0)
				if i == 0 {
					want = q
				}
				if a[i].Sub(a[i], b[i]).Cmp(big.NewInt(want)) != 0 {
					t.Fatalf("degree %d, depth %d: fG - gF is not q", 1<<logn, depth)
				}
				most = max(most, F[i].BitLen()-f[i].BitLen(), G[i].BitLen()-g[i].BitLen())
			}
			return most
		}
		if !s.solveBottom() {
			t.Fatalf("degree %d: no solution at the bottom", 1<<logn)
		}
		check(s.logn, s.stride)
		for depth := s.logn - 1; depth >= 0; depth-- {
			s.lift(depth)
			check(depth, s.stride)
			if !s.reduce(depth) {
				t.Fatalf("degree %d, depth %d: not reduced", 1<<logn, depth)
			}
			check(depth, s.reducedBits(depth)/64+1)
		}
	}
}

// The last reduction leaves |(F·adj(f) + G·adj(g))/(f·adj(f) + g·adj(g))| <= 1/2 in all coefficients: then F and G are those of
// the reference implementation.
func TestReducedCompletely(t *testing.T) {
	t.Parallel()
	for logn := uint(2); logn <= 10; logn++ {
		for i := range 5 {
			f, g, F, G := ntruGen(logn, testSHAKE(t.Name(), i))
			var x [6][]fpr
			for i, p := range [][]int8{f, g, F, G, f, g} {
				x[i] = make([]fpr, len(f))
				polyInt(x[i], p)
				fft(x[i])
			}
			polyAddMulAdjoints(x[2], x[2], x[3], x[0], x[1])
			polyInvNorm(x[4], x[0], x[1])
			polyMulReal(x[2], x[4])
			ifft(x[2])
			for j, k := range x[2] {
				if k := float(k); math.Abs(k) > 0.5+1e-9 {
					t.Fatalf("degree %d, key %d: coefficient %d of the quotient is %v", 1<<logn, i, j, k)
				}
			}
		}
	}
}

func TestSolveRefuses(t *testing.T) {
	t.Parallel()
	for logn := uint(2); logn <= 10; logn++ {
		n := 1 << logn
		f, g := shortPair(logn, t.Name(), 0)
		s := newSolver(logn)
		F, G := make([]int8, n), make([]int8, n)
		if !s.solve(F, G, f, g) {
			t.Fatalf("degree %d: f and g of a key were refused", n)
		}
		// What solve checks at its end.
		words := s.large
		for _, change := range []struct {
			name string
			at   int
			by   uint64
		}{{"F", 1, 1}, {"F", n - 1, ^uint64(0)}, {"G", n, 1}, {"G", 2*n - 1, 2}, {"F", 0, 256}, {"G", n + 1, 1 << 63}, {"F", 0, ^uint64(255)}} {
			word := &words[change.at*s.stride]
			*word += change.by
			if s.result(F, G, f, g) {
				t.Errorf("degree %d: another %s by %#x solves the equation too", n, change.name, change.by)
			}
			*word -= change.by
		}
		if !s.result(F, G, f, g) {
			t.Fatalf("degree %d: the solution was changed by the test", n)
		}
		// No solutions: a divisor in common.
		if s.solve(F, G, f, f) {
			t.Errorf("degree %d: f and f have a solution", n)
		}
	}
}

// A float is that of the limbs, as exact as a float64 is, for each window.
func TestToFloat(t *testing.T) {
	t.Parallel()
	r := testRand(t.Name())
	for range 5000 {
		words, limbs := 1+r.IntN(12), 1+r.IntN(26)
		from, count := window(limbs)
		x := randomWords(r, words)
		// So many bits as the limbs have.
		n := bigOf(x, true)
		n.Rsh(n, uint(max(0, 64*words-limb*limbs))+uint(r.IntN(20)))
		setBig(x, n)
		var got [1]fpr
		toFloat(got[:], x, words, words, from, count)
		want, _ := new(big.Float).SetInt(new(big.Int).Rsh(n, uint(from))).Float64()
		value := float(got[0])
		if math.Abs(value-want) > math.Abs(want)*0x1p-51 {
			t.Fatalf("%x from bit %d is %v, not %v", n, from, value, want)
		}
	}
}

// Both ways of subtracting k·(f, g)·2^scale.
func TestSubtract(t *testing.T) {
	t.Parallel()
	r := testRand(t.Name())
	for logn := 1; logn <= 9; logn++ {
		s := newSolver(uint(logn))
		for depth := range logn {
			n, words := s.size(depth), smallWords(depth)
			if n > 64 {
				continue
			}
			t.Run(fmt.Sprintf("%d/%d", 1<<logn, depth), func(t *testing.T) { testSubtract(t, r, s, depth, n, words) })
		}
	}
}

func testSubtract(t *testing.T, r *rand.Rand, s *solver, depth, n, words int) {
	random := func(into []uint64, bits int) {
		x := bigOf(randomWords(r, len(into)+1), true)
		setBig(into, x.Rsh(x, uint(64*(len(into)+1)-bits-1)))
	}
	s.stride = wordsFor(s.largeBits(depth))
	for round := range 12 {
		for i := range 2 * n {
			random(s.small[depth][i*words:][:words], mostBits(depth))
			random(s.large[i*s.stride:][:s.stride], s.largeBits(depth))
		}
		k := make([]*big.Int, n)
		for i := range k {
			s.k[i] = int64(r.Uint32()>>1) - 1<<30
			switch round {
			case 0:
				s.k[i] = 1<<quotientBits - 2
			case 1:
				s.k[i] = -(1<<quotientBits - 2)
			}
			k[i] = big.NewInt(s.k[i])
		}
		// As far up as there is room for k·f.
		scale := r.IntN(max(1, s.largeBits(depth)-mostBits(depth)-quotientBits-10))
		used := s.stride
		var want [2][]*big.Int
		for of := range want {
			product := mulBig(k, bigPoly(s.small[depth][of*n*words:], n, words, words))
			want[of] = bigPoly(s.large[of*n*s.stride:], n, used, s.stride)
			for i := range product {
				want[of][i].Sub(want[of][i], product[i].Lsh(product[i], uint(scale)))
			}
		}
		if s.transforms(depth) {
			s.set(depth)
			s.subtractTransformed(depth, scale, used)
		} else {
			s.subtractTerms(depth, scale, used)
		}
		for of := range want {
			got := bigPoly(s.large[of*n*s.stride:], n, used, s.stride)
			for i := range got {
				if got[i].Cmp(want[of][i]) != 0 {
					t.Fatalf("round %d, scale %d: coefficient %d of %d is %x, not %x", round, scale, i, of, got[i], want[of][i])
				}
			}
		}
	}
}

// set does of lift what the reduction wants.
func (s *solver) set(depth int) {
	n, words := s.size(depth), smallWords(depth)
	for j := range s.rings {
		m := &s.rings[j]
		m.roots = m.roots[:n]
		m.set(&primes[j])
		f, g := make([]uint64, n), make([]uint64, n)
		m.reduceAll(f, s.small[depth], words, words, m.power(words+1))
		m.reduceAll(g, s.small[depth][n*words:], words, words, m.power(words+1))
		m.transform(f)
		m.transform(g)
		s.keep(depth, j, f, g)
	}
}

// TestLengths measures what the table says.
func TestLengths(t *testing.T) {
	t.Parallel()
	const keys = 40
	var bits [11][keys]int
	s := newSolver(10)
	source := &gaussSource{rng: testSHAKE(t.Name(), 0)}
	f, g := make([]int8, 1024), make([]int8, 1024)
	for key := 0; key < keys; {
		source.polynomial(f, 10)
		source.polynomial(g, 10)
		if !isShort(f, g, 10) || !s.isShortOrthogonalized(f, g) {
			continue
		}
		s.start(f, g)
		for depth := 0; ; depth++ {
			words := smallWords(depth)
			for at := 0; at < len(s.small[depth]); at += words {
				x := bigOf(s.small[depth][at:][:words], true)
				bits[depth][key] = max(bits[depth][key], x.Abs(x).BitLen())
			}
			if depth == s.logn {
				break
			}
			s.fieldNorms(depth)
		}
		key++
	}
	for depth := range bits {
		sum := 0
		for _, n := range bits[depth] {
			sum += n
			if n < leastBits(depth) || n > mostBits(depth) {
				t.Errorf("depth %d: a coefficient of %d bits", depth, n)
			}
		}
		mean := float64(sum) / keys
		// The mean of as many deviates by a sixth of the deviation; the table has whole bits.
		expected, deviation := float64(lengths[depth].mean), float64(lengths[depth].deviation)
		if depth < 10 && math.Abs(mean-expected) > deviation+0.5 {
			t.Errorf("depth %d: %.1f bits in the mean, not %v", depth, mean, expected)
		}
	}
}

func TestSolverIsWiped(t *testing.T) {
	t.Parallel()
	s := newSolver(9)
	f, g, F, G := ntruGen(9, testSHAKE(t.Name(), 0))
	if !s.isShortOrthogonalized(f, g) || !s.solve(F, G, f, g) {
		t.Fatal("not solved")
	}
	s.wipe()
	var rest uint64
	words := [][]uint64{s.large, s.before, s.scratch, s.shifted, s.factors, s.excess, s.terms}
	words = append(words, s.small[:]...)
	words = append(words, s.residues[:]...)
	words = append(words, s.values[:]...)
	words = append(words, s.fg[0]...)
	words = append(words, s.fg[1]...)
	for _, x := range words {
		for _, word := range x {
			rest |= word
		}
	}
	for _, x := range s.floats {
		for _, v := range x {
			rest |= bitsOf(v)
		}
	}
	for _, k := range s.k {
		rest |= uint64(k)
	}
	if rest != 0 {
		t.Fatal("something of the key is left")
	}
}
