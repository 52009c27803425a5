package falcon

import (
	"math/big"
	"testing"
)

func TestPrimes(t *testing.T) {
	t.Parallel()
	p, one := new(big.Int).Lsh(big.NewInt(1), 63), big.NewInt(1)
	p.Add(p, one)
	product := big.NewInt(1)
	for i, prime := range primes {
		for p.Sub(p, big.NewInt(2048)); !p.ProbablyPrime(10); p.Sub(p, big.NewInt(2048)) {
		}
		if p.BitLen() != 63 || p.Uint64() != prime.p {
			t.Fatalf("prime %d is %x, not %x", i, prime.p, p)
		}
		a := big.NewInt(2)
		for big.Jacobi(a, p) != -1 {
			a.Add(a, one)
		}
		root := new(big.Int).Exp(a, new(big.Int).Rsh(p, 11), p)
		if root.Uint64() != prime.root || new(big.Int).Exp(root, big.NewInt(1024), p).Cmp(new(big.Int).Sub(p, one)) != 0 {
			t.Fatalf("root %d is %x, not %x", i, prime.root, root)
		}
		if inverse := new(big.Int).ModInverse(product, p); inverse.Uint64() != prime.inverse {
			t.Fatalf("inverse %d is %x, not %x", i, prime.inverse, inverse)
		}
		product.Mul(product, p)
	}
}

func TestField(t *testing.T) {
	t.Parallel()
	r := testRand(t.Name())
	for _, prime := range primes {
		m := newField(prime.p)
		P := new(big.Int).SetUint64(m.p)
		R := new(big.Int).Lsh(big.NewInt(1), 64)
		inverse := new(big.Int).ModInverse(R, P)
		for range 200 {
			x, y, n := randomWord(r)%m.p, randomWord(r)%m.p, 1+r.IntN(12)
			if r.IntN(4) == 0 {
				x = m.p - 1 - uint64(r.IntN(2))
			}
			X, Y := new(big.Int).SetUint64(x), new(big.Int).SetUint64(y)
			long := randomWords(r, n)
			full := randomWord(r)
			small := int64(randomWord(r)) / 4
			power := new(big.Int).Exp(R, big.NewInt(int64(n)), P)
			for _, test := range []struct {
				name string
				got  uint64
				want *big.Int
			}{
				{"add", m.add(x, y), new(big.Int).Add(X, Y)},
				{"sub", m.sub(x, y), new(big.Int).Sub(X, Y)},
				{"mul", m.mul(x, full), new(big.Int).Mul(inverse, new(big.Int).Mul(X, new(big.Int).SetUint64(full)))},
				{"montgomery", m.montgomery(x), new(big.Int).Mul(X, R)},
				{"power", m.power(n), power},
				{"reduce", m.reduce(long, m.power(n+1)), bigOf(long, false)},
				{"reduceSigned", m.reduceSigned(long, m.power(n+1)), bigOf(long, true)},
				{"reduceInt", m.reduceInt(small), big.NewInt(small)},
			} {
				if want := test.want.Mod(test.want, P).Uint64(); test.got != want {
					t.Fatalf("%s modulo %x of %x, %x, %x, %x, %d is %x, not %x", test.name, m.p, x, y, full, long, small, test.got, want)
				}
			}
		}
	}
}

// Products by way of the transform are those modulo x^n + 1.
func TestRing(t *testing.T) {
	t.Parallel()
	r := testRand(t.Name())
	for logn := 0; logn <= 10; logn++ {
		// Roots that are for a larger n serve too.
		for _, logRoots := range []int{logn, min(logn+1, 10), 10} {
			n := 1 << logn
			ring := ring{roots: make([]uint64, 1<<logRoots)}
			ring.set(&primes[r.IntN(len(primes))])
			a, b, product := make([]uint64, n), make([]uint64, n), make([]uint64, n)
			for i := range n {
				a[i], b[i] = r.Uint64()%ring.p, ring.montgomery(r.Uint64()%ring.p)
			}
			for i := range n {
				for j := range n {
					x := ring.mul(a[i], b[j])
					if i+j < n {
						product[i+j] = ring.add(product[i+j], x)
					} else {
						product[i+j-n] = ring.sub(product[i+j-n], x)
					}
				}
			}
			ring.transform(a)
			ring.transform(b)
			values := append([]uint64(nil), a...)
			for i := range n {
				a[i] = ring.mul(a[i], b[i])
			}
			ring.transformBack(a, ring.inverseOf(n))
			for i := range n {
				if a[i] != product[i] {
					t.Fatalf("coefficient %d of a product for n = %d is wrong", i, n)
				}
			}
			// The values at 2i and 2i+1 are at w and -w: half their sum is that of the even coefficients.
			if n == 1 {
				continue
			}
			ring.transformBack(values, ring.inverseOf(n))
			even := make([]uint64, n/2)
			for i := range even {
				even[i] = values[2*i]
			}
			ring.transform(values)
			ring.transform(even)
			for i, x := range even {
				if ring.add(values[2*i], values[2*i+1]) != ring.add(x, x) {
					t.Fatalf("values %d and %d for n = %d are not at opposite roots", 2*i, 2*i+1, n)
				}
			}
		}
	}
}

func TestRebuild(t *testing.T) {
	t.Parallel()
	r := testRand(t.Name())
	for _, size := range []int{1, 2, 3, 4, 7, 20, len(primes)} {
		product := big.NewInt(1)
		for _, prime := range primes[:size] {
			product.Mul(product, new(big.Int).SetUint64(prime.p))
		}
		half := new(big.Int).Rsh(product, 1)
		numbers := []*big.Int{new(big.Int), big.NewInt(1), big.NewInt(-1), half, new(big.Int).Neg(half)}
		for range 20 {
			n := bigOf(randomWords(r, size), false)
			n.Rsh(n, uint(r.IntN(64*size)))
			numbers = append(numbers, n.Sub(n.Mod(n, product), half))
		}
		x := make([]uint64, size*len(numbers))
		for i, n := range numbers {
			for j, prime := range primes[:size] {
				x[i*size+j] = new(big.Int).Mod(n, new(big.Int).SetUint64(prime.p)).Uint64()
			}
		}
		rebuild(x, size, make([]uint64, size))
		for i, n := range numbers {
			if got := bigOf(x[i*size:][:size], true); got.Cmp(n) != 0 {
				t.Fatalf("number %d of %d words is %x, not %x", i, size, got, n)
			}
		}
	}
}
