package falcon

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strings"
	"testing"
)

// The table has the sums of the half Gaussian's probabilities times 2^72, each rounded down (Falcon spec 3.9.3).
func TestBaseTable(t *testing.T) {
	t.Parallel()
	const precision = 256
	number := func() *big.Float { return new(big.Float).SetPrec(precision) }
	sigma, _, err := big.ParseFloat("1.8205", 10, precision, big.ToNearestEven)
	if err != nil {
		t.Fatal(err)
	}
	// rho(z) = exp(-z^2/2sigma^2) is a power of rho(1), that the series of exp gives.
	x := number().Quo(number().SetFloat64(-0.5), number().Mul(sigma, sigma))
	first, term := number(), number().SetInt64(1)
	for i := range 80 {
		first.Add(first, term)
		term.Mul(term, x)
		term.Quo(term, number().SetInt64(int64(i+1)))
	}
	var rho [40]*big.Float
	sum := number()
	for z := range rho {
		rho[z] = number().SetInt64(1)
		for range z * z {
			rho[z].Mul(rho[z], first)
		}
		sum.Add(sum, rho[z])
	}
	tail := new(big.Int)
	for i := len(rho) - 1; i > 0; i-- {
		p, _ := number().Quo(number().SetMantExp(rho[i], 72), sum).Int(nil)
		tail.Add(tail, p)
		row := struct{ high, low uint64 }{}
		if i <= len(baseTable) {
			row = baseTable[i-1]
		}
		got := new(big.Int).SetUint64(row.high)
		got.Add(got.Lsh(got, 64), new(big.Int).SetUint64(row.low))
		if got.Cmp(tail) != 0 {
			t.Errorf("row %d is %v, want %v", i-1, got, tail)
		}
	}
}

// Falcon spec 3.9.3, table 3.2: centre, standard deviation, random bytes of each trial and what is drawn, for Falcon-512.
func TestSamplerKnownAnswers(t *testing.T) {
	t.Parallel()
	for _, v := range []struct {
		mu, sigma float64
		random    string
		z         int64
	}{
		{-91.90471153063714, 1.7037990414754918, "0fc5442ff043d66e91d1ea cac64ea5450a22941edc6c", -92},
		{-8.322564895434937, 1.7037990414754918, "f4da0f8d8444d1a77265c2 ef6f98bbbb4bee7db8d9b3", -8},
		{-19.096516109216804, 1.7035823083824078, "db47f6d7fb9b19f25c36d6 b9334d477a8bc0be68145d", -20},
		{-11.335543982423326, 1.7035823083824078, "ae41b4f5209665c74d00dc c1a8168a7bb516b3190cb4 2c1ded26cd52aed770eca7 dd334e0547bcc3c163ce0b", -12},
		{7.9386734193997555, 1.6984647769450156, "31054166c1012780c603ae 9b833cec73f2f41ca5807c c89c92158834632f9b1555", 8},
		{-28.990850086867255, 1.6984647769450156, "737e9d68a50a06dbbc6477", -30},
		{-9.071257914091655, 1.6980782114808988, "a98ddd14bf0bf22061d632", -10},
		{-43.88754568839566, 1.6980782114808988, "3cbf6818a68f7ab9991514", -41},
		{-58.17435547946095, 1.7010983419195522, "6f8633f5bfa5d26848668e 3d5ddd46958e97630410587c", -61},
		{-43.58664906684732, 1.7010983419195522, "272bc6c25f5c5ee53f83c4 3a361fbc7cc91dc783e20a", -46},
		{-34.70565203313315, 1.7009387219711465, "45443c59574c2c3b07e2e1 d9071e6d133dbe32754b0a", -34},
		{-44.36009577368896, 1.7009387219711465, "6ac116ed60c258e2cbaeab 728c4823e6da36e18d08da 5d0cc104e21cc7fd1f5ca8 d9dbb675266c928448059e", -44},
		{-21.783037079346236, 1.6958406126012802, "68163bc1e2cbf3e18e7426", -23},
		{-39.68827784633828, 1.6958406126012802, "d6a1b51d76222a705a0259", -40},
		{-18.488607061056847, 1.6955259305261838, "f0523bfaa8a394bf4ea5c1 0f842366fde286d6a30803", -22},
		{-48.39610939101591, 1.6955259305261838, "87bd87e63374cee62127fc 6931104aab64f136a0485b", -50},
	} {
		var random []byte
		for trial := range strings.FieldsSeq(v.random) {
			bytes, err := hex.DecodeString(trial)
			if err != nil {
				t.Fatal(err)
			}
			slices.Reverse(bytes[:9]) // the specification begins with the highest byte of the 72 bits, the reference implementation with the lowest
			random = append(random, bytes...)
		}
		s := sampler{sigmaMin: Degree512.sigmaMin()}
		copy(s.block[:], random)
		if z := s.integer(fprConst(v.mu), fprConst(1/v.sigma)); z != v.z || s.at != len(random) {
			t.Errorf("around %v, deviation %v: %d from %d bytes, want %d from %d", v.mu, v.sigma, z, s.at, v.z, len(random))
		}
	}
}

// gaussianProbabilities is the probability of each integer from low on.
func gaussianProbabilities(mu, sigma float64, low, n int) []float64 {
	p := make([]float64, n)
	sum := 0.0
	for i := range p {
		d := float64(low+i) - mu
		p[i] = math.Exp(-d * d / (2 * sigma * sigma))
		sum += p[i]
	}
	for i := range p {
		p[i] /= sum
	}
	return p
}

// chiSquare compares counts with probabilities, and puts what is expected fewer than 10 times together. The statistic is returned
// as a standard normal deviate (Wilson and Hilferty 1931).
func chiSquare(counts []int, p []float64) float64 {
	total := 0
	for _, c := range counts {
		total += c
	}
	x, bins := 0.0, 0
	rareCount, rareP := 0, 0.0
	add := func(count int, p float64) {
		expected := p * float64(total)
		x += (float64(count) - expected) * (float64(count) - expected) / expected
		bins++
	}
	for i, c := range counts {
		if p[i]*float64(total) < 10 {
			rareCount, rareP = rareCount+c, rareP+p[i]
			continue
		}
		add(c, p[i])
	}
	if rareP*float64(total) >= 1 {
		add(rareCount, rareP)
	}
	k := float64(bins - 1)
	return (math.Cbrt(x/k) - (1 - 2/(9*k))) / math.Sqrt(2/(9*k))
}

// The standard deviations are those of Falcon spec 2.6, but for the last bits: sigmaMin is the smoothing parameter of Z^2n for
// eps = 1/sqrt(2^64·lambda), and signatures have 1.17·sqrt(q) times as much.
func TestStandardDeviations(t *testing.T) {
	t.Parallel()
	for _, d := range degrees {
		lambda := float64(d.pick(128, 256))
		eps := 1 / math.Sqrt(0x1p64*lambda)
		smallest := math.Sqrt(math.Log(4*float64(d)*(1+1/eps))/2) / math.Pi
		if got := float(d.sigmaMin()); math.Abs(got/smallest-1) > 1e-15 {
			t.Errorf("%d: sigmaMin is %v, want %v", int(d), got, smallest)
		}
		if got, want := float(d.inverseSigma()), 1/(1.17*math.Sqrt(q)*smallest); math.Abs(got/want-1) > 1e-15 {
			t.Errorf("%d: 1/sigma is %v, want %v", int(d), got, want)
		}
	}
}

func TestSamplerDistribution(t *testing.T) {
	t.Parallel()
	const samples = 100_000
	const low, n = -24, 49
	seed := byte(0)
	for _, d := range degrees {
		sigmaMin := float(d.sigmaMin())
		for _, sigma := range []float64{sigmaMin + 1e-9, 1.7, sigmaMax - 1e-9} {
			for _, mu := range []float64{0, 0.5, -0.25, 3.1415} {
				seed++
				t.Run(fmt.Sprintf("%d around %v, deviation %.3f", int(d), mu, sigma), func(t *testing.T) {
					t.Parallel()
					s := sampler{sigmaMin: d.sigmaMin()}
					s.seed(shake([]byte{seed}))
					counts := make([]int, n)
					for range samples {
						z := s.integer(fprConst(mu), fprConst(1/sigma))
						if z < low || z >= low+n {
							t.Fatalf("%d was drawn", z)
						}
						counts[z-low]++
					}
					if x := chiSquare(counts, gaussianProbabilities(mu, sigma, low, n)); x > 4 {
						t.Errorf("chi-square is %.1f standard deviations too large", x)
					}
					// The test would see what is a little off.
					for _, wrong := range [][2]float64{{mu + 0.06, sigma}, {mu, sigma * 1.03}, {mu, sigma / 1.03}} {
						if x := chiSquare(counts, gaussianProbabilities(wrong[0], wrong[1], low, n)); x < 4 {
							t.Errorf("chi-square takes it for centre %v and deviation %v, at %.1f", wrong[0], wrong[1], x)
						}
					}
				})
			}
		}
	}
}

// What is drawn around mu+k is k more than what the same bytes give around mu.
func TestSamplerShifts(t *testing.T) {
	t.Parallel()
	for _, k := range []int64{-1 << 20, -3, 1, 1 << 20} {
		a, b := sampler{sigmaMin: Degree512.sigmaMin()}, sampler{sigmaMin: Degree512.sigmaMin()}
		a.seed(shake(nil))
		b.seed(shake(nil))
		for range 1000 {
			x, y := a.integer(fprConst(0.25), fprConst(0.6)), b.integer(fprConst(0.25).add(fprOf(k)), fprConst(0.6))
			if x+k != y {
				t.Fatalf("%d and %d, which are not %d apart", x, y, k)
			}
		}
	}
}

func TestExpNeg(t *testing.T) {
	t.Parallel()
	for i := range 1000 {
		x := math.Ln2 * float64(i) / 1000
		for _, ccs := range []float64{0.7, 0.999, 0x1p-10} {
			got, want := float64(expNeg(fprConst(x), fprConst(ccs))), math.Exp(-x)*ccs*0x1p63
			if math.Abs(got-want) > want*0x1p-43 {
				t.Errorf("2^63·%v·exp(-%v) = %v, want %v", ccs, x, got, want)
			}
		}
	}
}

func TestBernoulli(t *testing.T) {
	t.Parallel()
	var s sampler
	s.seed(shake([]byte("bernoulli")))
	const trials = 200_000
	for _, x := range []float64{0, 0.1, math.Ln2, 1, 2.5, 5, 44, 64.5 * math.Ln2, 70, 1000} {
		for _, ccs := range []float64{1.0 - 1.0/1024, 0.75} {
			heads := 0
			for range trials {
				if s.bernoulli(fprConst(x), fprConst(ccs)) {
					heads++
				}
			}
			p := ccs * math.Exp(-x)
			if d := math.Abs(float64(heads) - p*trials); d > 4*math.Sqrt(p*(1-p)*trials)+0.5 {
				t.Errorf("%d of %d, want about %.1f", heads, trials, p*trials)
			}
		}
	}
}

// bernoulli is decided by the first byte that differs, and is false if none does.
func TestBernoulliDecides(t *testing.T) {
	t.Parallel()
	x, ccs := fprConst(0.4), fprConst(0.75)
	p := expNeg(x, ccs)<<1 - 1
	for _, v := range []struct {
		random uint64
		want   bool
		bytes  int
	}{
		{p, false, 8}, {p - 1, true, 8}, {p + 1, false, 8}, {p - 1<<56, true, 1}, {p + 1<<56, false, 1}, {p - 1<<24, true, 5}, {p + 1<<24, false, 5},
	} {
		var s sampler
		binary.BigEndian.PutUint64(s.block[:], v.random)
		if got := s.bernoulli(x, ccs); got != v.want || s.at != v.bytes {
			t.Errorf("%#x for %#x: %v from %d bytes, want %v from %d", v.random, p, got, s.at, v.want, v.bytes)
		}
	}
}

func BenchmarkSampler(b *testing.B) {
	s := sampler{sigmaMin: Degree512.sigmaMin()}
	s.seed(shake(nil))
	for b.Loop() {
		s.integer(fprConst(0.3), fprConst(1/1.7))
	}
}
