package falcon

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// naiveProduct is a*b modulo q and x^n + 1, as it is written.
func naiveProduct(a, b []uint32) []uint32 {
	n := len(a)
	product := make([]uint32, n)
	for i := range n {
		for j := range n {
			term := a[i] % q * (b[j] % q) % q
			if i+j >= n {
				term = q - term
			}
			k := (i + j) % n
			product[k] = (product[k] + term) % q
		}
	}
	return product
}

func randomModQ(random *rand.Rand, n int) []uint32 {
	a := make([]uint32, n)
	for i := range a {
		a[i] = random.Uint32N(q)
	}
	return a
}

func TestRoots(t *testing.T) {
	t.Parallel()
	power := func(e uint32) uint32 {
		w := uint32(1)
		for range e {
			w = w * 7 % q
		}
		return w
	}
	if power(1024) != q-1 {
		t.Fatal("7 is no primitive 2048th root of one")
	}
	for i, r := range roots {
		reversed := uint32(0)
		for bit := range 10 {
			reversed |= uint32(i) >> bit & 1 << (9 - bit)
		}
		if w := power(reversed); r.w != w || r.quotient != uint32(uint64(w)<<32/q) {
			t.Fatalf("root %d is %v, not %d", i, r, w)
		}
	}
}

func TestReduce(t *testing.T) {
	t.Parallel()
	check := func(x uint32) {
		if got := reduce(x); got != x%q {
			t.Fatalf("reduce(%d) = %d", x, got)
		}
	}
	for m := uint64(0); m < 1<<32; m += q * 37 {
		for delta := uint64(0); delta < 3; delta++ {
			check(uint32(m + delta))
			check(uint32(m + q - 1 - delta))
		}
	}
	check(1<<32 - 1)
	for x := range uint32(q) {
		c := centre(x)
		if c < -6144 || c > 6144 || (c-int32(x))%q != 0 {
			t.Fatalf("centre(%d) = %d", x, c)
		}
		if x > 0 && invert(x)*x%q != 1 {
			t.Fatalf("invert(%d) = %d", x, invert(x))
		}
	}
}

// TestTransform: a product of transforms is the transform of the product, at all degrees, also of the largest values.
func TestTransform(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	for n := 2; n <= 1024; n *= 2 {
		top := slices.Repeat([]uint32{q - 1}, n)
		for _, pair := range [][2][]uint32{
			{randomModQ(random, n), randomModQ(random, n)},
			{top, randomModQ(random, n)},
			{top, top},
		} {
			want := naiveProduct(pair[0], pair[1])
			a, b := slices.Clone(pair[0]), slices.Clone(pair[1])
			transform(a)
			transform(b)
			for i := range a {
				if a[i] > 11*q {
					t.Fatalf("degree %d: transform leaves %d", n, a[i])
				}
				a[i] = reduce(a[i] * reduce(b[i]))
			}
			transformBack(a)
			if !slices.Equal(a, want) {
				t.Fatalf("degree %d: another product", n)
			}
		}
	}
}

func TestDivideModQ(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(3, 4))
	for n := 2; n <= 1024; n *= 2 {
		f, g := make([]int8, n), make([]int8, n)
		h := make([]uint16, n)
		for invertible := 0; invertible < 3; {
			for i := range f {
				f[i], g[i] = int8(random.IntN(256)-128), int8(random.IntN(256)-128)
			}
			if !divideModQ(h, g, f) {
				continue // one in about q/n
			}
			invertible++
			wide, factor := make([]uint32, n), make([]uint32, n)
			for i := range h {
				wide[i] = uint32(h[i])
			}
			modQ(factor, f)
			product, want := naiveProduct(wide, factor), make([]uint32, n)
			modQ(want, g)
			if !slices.Equal(product, want) {
				t.Fatalf("degree %d: f*h is not g", n)
			}
		}
		clear(f)
		if divideModQ(h, g, f) {
			t.Fatalf("degree %d: divides by zero", n)
		}
	}
	// 7 is a root of x^1024 + 1 modulo q: one value of the transform is zero.
	f, g, h := make([]int8, 1024), make([]int8, 1024), make([]uint16, 1024)
	f[0], f[1] = -7, 1
	if divideModQ(h, g, f) {
		t.Fatal("x - 7 is not invertible")
	}
}
