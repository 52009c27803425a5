package combine

import (
	"bytes"
	"crypto/sha512"
	"fmt"
	"math/rand/v2"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"pqlab/pqc"
)

const domain = "pqlab/1 tunnel key"

// example is two sources as an exchange has them, from a fixed seed.
func example(seed byte) []source {
	draw := rand.NewChaCha8([32]byte{seed})
	bytesOf := func(n int) []byte {
		b := make([]byte, n)
		draw.Read(b)
		return b
	}
	return []source{
		{"tls", bytesOf(32), [][]byte{bytesOf(32)}},
		{"kem", bytesOf(32), [][]byte{bytesOf(1184), bytesOf(1088)}},
	}
}

// combined is what the product makes of sources.
func combined(name string, sources []source) ([]byte, error) {
	GinkgoHelper()
	c, err := pqc.ParseCombiner(name)
	Expect(err).NotTo(HaveOccurred())
	var given []pqc.Source
	for _, s := range sources {
		given = append(given, pqc.Source{Name: s.name, Secret: s.secret, Public: s.public})
	}
	return c.Combine(domain, given...)
}

func mustCombine(name string, sources []source) []byte {
	GinkgoHelper()
	key, err := combined(name, sources)
	Expect(err).NotTo(HaveOccurred())
	return key
}

func sensitive() {
	for _, c := range combiners() {
		It("changes both SAs with every bit of either secret: "+c.name, func() {
			sources, h := example(1), sha512.Sum384([]byte("transcript"))
			key := mustCombine(c.name, sources)
			before := expand([32]byte(key), h[:])
			for which := range sources {
				for bit := range 256 {
					sources[which].secret[bit/8] ^= 1 << (bit % 8)
					other := mustCombine(c.name, sources)
					want := c.key(sources)
					Expect(bytes.Equal(other, want[:])).To(BeTrue(), "what docs/exchange.md says")
					Expect(bytes.Equal(other, key)).To(BeFalse())
					after := expand([32]byte(other), h[:])
					Expect(differs(before.toResponder, after.toResponder)).To(BeTrue())
					Expect(differs(before.toInitiator, after.toInitiator)).To(BeTrue())
					sources[which].secret[bit/8] ^= 1 << (bit % 8)
				}
			}
			Expect(bytes.Equal(mustCombine(c.name, sources), key)).To(BeTrue())
		})
	}
	It("changes the key with every public value: hardened", func() {
		sources := example(2)
		key := mustCombine("hardened", sources)
		for _, s := range sources {
			for _, p := range s.public {
				for _, at := range []int{0, len(p) / 2, len(p) - 1} {
					p[at] ^= 1
					Expect(bytes.Equal(mustCombine("hardened", sources), key)).To(BeFalse())
					p[at] ^= 1
				}
			}
		}
		sources[0], sources[1] = sources[1], sources[0]
		Expect(bytes.Equal(mustCombine("hardened", sources), key)).To(BeFalse(), "the order of the sources")
	})
}

// differs says that key and salt both do.
func differs(a, b [36]byte) bool { return !bytes.Equal(a[:32], b[:32]) && !bytes.Equal(a[32:], b[32:]) }

// samples of the secret that the attacker lacks.
const samples = 20000

// Of a uniform byte the statistic below has 255 degrees of freedom; by Wilson and Hilferty's approximation one in
// three million is over 384.5 (five standard deviations). The samples come from a fixed seed.
const limit = 384.5

func uniform() {
	for _, c := range combiners() {
		for known, name := range []string{"TLS", "KEM"} {
			It(fmt.Sprintf("tells nothing to whoever knows the %s secret only: %s", name, c.name), func() {
				sources, h := example(3), sha512.Sum384([]byte("transcript"))
				if known == 0 { // the worst that is allowed: a secret that the attacker has chosen
					sources[0].secret = append(make([]byte, 31), 1)
				}
				draw := rand.NewChaCha8([32]byte{4, byte(known)})
				var ofKey [32][256]int
				var ofSA [72][256]int
				for range samples {
					draw.Read(sources[1-known].secret)
					key := mustCombine(c.name, sources)
					sa := expand([32]byte(key), h[:])
					for i, b := range key {
						ofKey[i][b]++
					}
					for i, b := range append(sa.toResponder[:], sa.toInitiator[:]...) {
						ofSA[i][b]++
					}
				}
				for i := range ofKey {
					Expect(chiSquare(ofKey[i])).To(BeNumerically("<", limit), "byte %d of the key", i)
				}
				for i := range ofSA {
					Expect(chiSquare(ofSA[i])).To(BeNumerically("<", limit), "byte %d of the SAs", i)
				}
			})
		}
	}

	// For a fixed secret of either source, xor maps the other secret to the key byte by byte, and every byte by a
	// permutation; so it is a permutation of all secrets, and a uniform secret gives a uniform key, whatever the fixed one is.
	It("is a permutation of either secret when the other is fixed: xor", func() {
		for fixed := range 2 {
			sources := example(5)
			key := mustCombine("xor", sources)
			for i := range 32 {
				other := sources[1-fixed].secret
				before := other[i]
				var taken [256]bool
				for v := range 256 {
					other[i] = byte(v)
					k := mustCombine("xor", sources)
					Expect(taken[k[i]]).To(BeFalse(), "byte %d takes the value of %d twice", i, k[i])
					taken[k[i]] = true
					k[i] = key[i]
					Expect(bytes.Equal(k, key)).To(BeTrue(), "no other byte depends on byte %d", i)
				}
				other[i] = before
			}
		}
	})
}

// chiSquare is Pearson's statistic of counts against the uniform distribution.
func chiSquare(counts [256]int) (x float64) {
	const expected = float64(samples) / 256
	for _, n := range counts {
		d := float64(n) - expected
		x += d * d / expected
	}
	return x
}

func refused() {
	for _, c := range combiners() {
		DescribeTable("refuses secrets that hide nothing: "+c.name, func(spoil func([]source) []source, want error) {
			key, err := combined(c.name, spoil(example(6)))
			Expect(err).To(MatchError(want))
			Expect(key).To(BeNil())
		},
			Entry("equal ones", func(s []source) []source { s[1].secret = s[0].secret; return s }, pqc.ErrEqualSecrets),
			Entry("equal ones in different memory", func(s []source) []source { s[1].secret = bytes.Clone(s[0].secret); return s }, pqc.ErrEqualSecrets),
			Entry("all zeros in the first", func(s []source) []source { clear(s[0].secret); return s }, pqc.ErrZeroSecret),
			Entry("all zeros in the second", func(s []source) []source { clear(s[1].secret); return s }, pqc.ErrZeroSecret),
			Entry("one alone", func(s []source) []source { return s[:1] }, pqc.ErrSources),
			Entry("none", func([]source) []source { return nil }, pqc.ErrSources),
		)
		for _, length := range []int{0, 16, 31, 33, 64} {
			It(fmt.Sprintf("refuses a secret of %d bytes: %s", length, c.name), func() {
				for which := range 2 {
					s := example(7)
					s[which].secret = bytes.Repeat([]byte{7}, length)
					var size *pqc.SizeError
					_, err := combined(c.name, s)
					Expect(err).To(BeAssignableToTypeOf(size))
				}
			})
		}
	}
}
