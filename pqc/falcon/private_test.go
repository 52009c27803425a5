package falcon

import (
	"errors"
	"slices"
	"testing"

	"pqlab/internal/race"
)

// TestPrivateKeysWithLowestG: with (F, G) any (F, G) + m·x^j·(f, g) solves the equation, and signs as well. One with a -128 in
// G is no key: GenerateKey makes none, and the reference implementation refuses it.
func TestPrivateKeysWithLowestG(t *testing.T) {
	t.Parallel()
	race.Skip(t)
	each(t, func(t *testing.T, d Degree) {
		key := sampleKey(t, d)
		n := int(d)
		shifted := func(to, by []int8, m, j int) (sum []int8, least, most int) {
			sum = make([]int8, n)
			for i := range n {
				c := m * int(by[(i-j+n)%n])
				if i < j {
					c = -c
				}
				c += int(to[i])
				sum[i], least, most = int8(c), min(least, c), max(most, c)
			}
			return sum, least, most
		}
		found := 0
		for m := -60; m <= 60; m++ {
			for j := range n {
				F, leastF, mostF := shifted(key.bigF, key.f, m, j)
				G, leastG, mostG := shifted(key.bigG, key.g, m, j)
				if leastF < -127 || mostF > 127 || leastG < -128 || leastG > -127 || mostG > 127 {
					continue
				}
				if found++; !productsDifferByQ(key.f, key.g, F, G) {
					t.Fatal("the test's own key solves nothing")
				}
				read, err := NewPrivateKey(d, encodePrivate(d, key.f, key.g, F))
				if leastG == -128 && !errors.Is(err, ErrPrivateKey) {
					t.Errorf("%d times x^%d, G down to -128: %v", m, j, err)
				}
				if leastG == -127 && (err != nil || !slices.Equal(read.bigG, G)) {
					t.Errorf("%d times x^%d, G down to -127: %v", m, j, err)
				}
				if found == 8 {
					return
				}
			}
		}
		t.Errorf("only %d such keys were found", found)
	})
}

// TestPrivateKeysTooLong: keys that solve the equation and whose f and g are a little longer than those of GenerateKey are
// refused: the sampler would be asked for standard deviations below its smallest.
func TestPrivateKeysTooLong(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, d Degree) {
		n, logn := int(d), d.logn()
		s := newSolver(logn)
		f, g, F, G := make([]int8, n), make([]int8, n), make([]int8, n), make([]int8, n)
		h := make([]uint16, n)
		source := &gaussSource{rng: testSHAKE(t.Name(), 0)}
		long, short := 0, 0
		for range 2000 {
			if long >= 3 && short >= 1 {
				return
			}
			source.polynomial(f, logn)
			source.polynomial(g, logn)
			norm, most := 0, 0
			for i := range f {
				norm += int(f[i])*int(f[i]) + int(g[i])*int(g[i])
				most = max(most, int(f[i]), -int(f[i]), int(g[i]), -int(g[i]))
			}
			// The lower of the sampler's bounds alone would admit up to 18200.
			fits := norm <= maxSmallNorm && s.isShortOrthogonalized(f, g)
			if most > int(maxSmall[logn]) || norm > 17800 || !fits && norm <= maxSmallNorm || fits && short > 0 {
				continue
			}
			if !divideModQ(h, g, f) || !s.solve(F, G, f, g) {
				continue
			}
			_, err := NewPrivateKey(d, encodePrivate(d, f, g, F))
			if fits {
				short++
			} else {
				long++
			}
			if fits != (err == nil) || err != nil && !errors.Is(err, ErrPrivateKey) {
				t.Errorf("squared norm %d: %v", norm, err)
			}
		}
		t.Errorf("only %d and %d such keys were found", long, short)
	})
}
