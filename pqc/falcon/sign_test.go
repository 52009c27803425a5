package falcon

import (
	"bytes"
	"math"
	"slices"
	"sync"
	"testing"

	"pqlab/internal/race"
)

// Signing with the vectors' own keys gives the vectors' bytes, with float64 and with integers, with FMA allowed and without.
func TestVectorsSign(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, d Degree) {
		for i, v := range vectors(t, d) {
			private, err := NewPrivateKey(d, v.sk)
			if err != nil {
				t.Fatalf("vector %d: %v", i, err)
			}
			random := newDRBG(t, v.seed)
			random.bytes(t, 48) // what the key was made from
			nonce := [nonceSize]byte(random.bytes(t, nonceSize))
			signature, err := private.sign(v.message, &nonce, shake(random.bytes(t, 48)), false)
			if err != nil {
				t.Fatalf("vector %d: %v", i, err)
			}
			if !bytes.Equal(signature, v.signature(t, d)) {
				t.Errorf("vector %d: another signature", i)
			}
		}
	})
}

// A signature that was too long to be padded leaves nothing in the padding of the next attempt. Of Falcon-1024's one in a
// hundred is; those of Falcon-512 never are.
func TestSignAgainWhenTooLong(t *testing.T) {
	t.Parallel()
	race.Skip(t)
	const d = Degree1024
	key := sampleKey(t, d)
	message, nonce := []byte("long"), new([nonceSize]byte)
	for i := range 2000 {
		seed := []byte{byte(i), byte(i >> 8)}
		unpadded, err := key.sign(message, nonce, shake(seed), false)
		if err != nil {
			t.Fatal(err)
		}
		if len(unpadded) <= d.SignatureSize() {
			continue
		}
		padded, err := key.sign(message, nonce, shake(seed), true)
		if err != nil {
			t.Fatal(err)
		}
		if err := key.PublicKey().VerifyUnpadded(message, unpadded); err != nil {
			t.Errorf("%d bytes unpadded: %v", len(unpadded), err)
		}
		if err := key.PublicKey().Verify(message, padded); err != nil || bytes.HasPrefix(unpadded, padded) {
			t.Errorf("padded, the second attempt: %v", err)
		}
		return
	}
	t.Error("no signature was too long")
}

// One key signs in several goroutines, and gives in each what it gives alone.
func TestSignConcurrently(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, d Degree) {
		private, err := NewPrivateKey(d, vectors(t, d)[0].sk)
		if err != nil {
			t.Fatal(err)
		}
		sign := func(i byte) []byte {
			signature, err := private.sign([]byte("message"), &[nonceSize]byte{i}, shake([]byte{i}), true)
			if err != nil {
				t.Error(err)
			}
			return signature
		}
		var want, got [8][]byte
		for i := range want {
			want[i] = sign(byte(i))
		}
		var all sync.WaitGroup
		for i := range got {
			all.Go(func() { got[i] = sign(byte(i)) })
		}
		all.Wait()
		for i := range want {
			if !bytes.Equal(got[i], want[i]) {
				t.Errorf("signature %d differs", i)
			}
		}
	})
}

// The distance (s1, s2) of a point from the lattice is Gaussian, the same in all directions, those of the secret basis among them
// (Falcon spec 3.9.1, algorithm 10): mere rounding would keep it within half a basis vector, and show it.
func TestDistancesAreGaussian(t *testing.T) {
	t.Parallel()
	race.Skip(t)
	each(t, func(t *testing.T, d Degree) {
		n := int(d)
		samples := 400 * 512 / n
		sigma := 1 / float(d.inverseSigma())
		private, err := NewPrivateKey(d, vectors(t, d)[1].sk)
		if err != nil {
			t.Fatal(err)
		}
		s := sampler{sigmaMin: d.sigmaMin()}
		s.seed(shake([]byte("norms")))
		work := make([]fpr, workPolynomials*n)
		c, s2 := make([]uint16, n), make([]int16, n)
		var whole, halves, along [2]float64 // squares; along (g, -f) and (G, -F)
		var norms []float64
		counts := make([]int, 40)
		for i := range samples {
			hashToPoint(c, []byte{byte(i), byte(i >> 8)}, nil)
			if !private.shortVector(s2, c, &s, work) {
				t.Errorf("sample %d is not short", i)
			}
			s1 := complement(private, c, s2)
			norm := [2]float64{square(s1), square(s2)}
			halves[0] += norm[0]
			halves[1] += norm[1]
			norms = append(norms, norm[0]+norm[1])
			whole[0] += norm[0] + norm[1]
			for _, x := range append(slices.Clone(s1), s2...) {
				bin := int(math.Floor(float64(x)/sigma*5)) + len(counts)/2
				counts[min(max(bin, 0), len(counts)-1)]++
			}
			for j, b := range [2][2][]int8{{private.g, private.f}, {private.bigG, private.bigF}} {
				along[j] += projection(s1, s2, b[0], b[1])
			}
		}
		expected := float64(samples*n) * sigma * sigma
		within := func(what string, got, want, tolerance float64) {
			t.Logf("%s: %.4f of what is expected", what, got/want)
			if math.Abs(got/want-1) > tolerance {
				t.Errorf("%s: %v, want %v", what, got, want)
			}
		}
		// Squares of k normal deviates sum up to k ± sqrt(2k); five of these deviations are tolerated.
		tolerance := 5 * math.Sqrt(2/float64(samples*n))
		within("|s1|²", halves[0], expected, tolerance)
		within("|s2|²", halves[1], expected, tolerance)
		within("along (g, -f)", along[0], expected, tolerance)
		within("along (G, -F)", along[1], expected, tolerance)

		// One norm is spread as 2n squares are.
		spread, mean := 0.0, whole[0]/float64(samples)
		for _, x := range norms {
			spread += (x - mean) * (x - mean) / float64(samples)
		}
		within("the spread of |(s1, s2)|²", math.Sqrt(spread), 2*sigma*sigma*math.Sqrt(float64(n)), 5/math.Sqrt(2*float64(samples)))

		p := make([]float64, len(counts))
		for i := range p {
			p[i] = normalCDF(float64(i+1-len(p)/2)/5, sigma) - normalCDF(float64(i-len(p)/2)/5, sigma)
		}
		if x := chiSquare(counts, p); x > 4 {
			t.Errorf("coefficients: chi-square is %.1f standard deviations too large", x)
		}
	})
}

// normalCDF is the probability of an integer below x·sigma from a Gaussian of that deviation, which is large.
func normalCDF(x, sigma float64) float64 {
	edge := (math.Ceil(x*sigma) - 0.5) / sigma
	return math.Erfc(-edge/math.Sqrt2) / 2
}

// complement is s1 = c - s2·h modulo q, centred.
func complement(k *PrivateKey, c []uint16, s2 []int16) []int16 {
	x := make([]uint32, len(c))
	modQ(x, s2)
	transform(x)
	for i, h := range k.public.h {
		x[i] = reduce(x[i] * h)
	}
	transformBack(x)
	s1 := make([]int16, len(c))
	for i := range s1 {
		y := (int(c[i]) - int(centre(x[i])) + 3*q) % q
		if y > q/2 {
			y -= q
		}
		s1[i] = int16(y)
	}
	return s1
}

func square(a []int16) float64 {
	sum := 0.0
	for _, x := range a {
		sum += float64(x) * float64(x)
	}
	return sum
}

// projection is the sum of the squares of (s1, s2)'s lengths along the n rotations of (a, -b).
func projection(s1, s2 []int16, a, b []int8) float64 {
	x, y, z := make([]fpr, len(a)), make([]fpr, len(a)), make([]fpr, len(a))
	polyInt(x, a)
	polyInt(y, s1)
	fft(x)
	fft(y)
	polyMulAdjoint(y, x)
	polyInt(x, b)
	polyInt(z, s2)
	fft(x)
	fft(z)
	polyMulAdjoint(z, x)
	polySub(y, z)
	ifft(y)
	sum, norm := 0.0, 0.0
	for i := range y {
		sum += float(y[i]) * float(y[i])
		norm += float64(a[i])*float64(a[i]) + float64(b[i])*float64(b[i])
	}
	return sum / norm
}
