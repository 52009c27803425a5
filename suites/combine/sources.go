package combine

import (
	"crypto/subtle"
	"math/rand/v2"

	. "github.com/onsi/ginkgo/v2"

	"pqlab/pqc"
)

const domain = "pqlab/1 tunnel key"

// numbers of sources that the specs combine: those of a tunnel, and one more, as a QKD key would be.
func numbers() []int { return []int{2, 3} }

// draws gives bytes of a fixed seed, so that a spec sees the same in each run.
func draws(seed ...byte) func(n int) []byte {
	var key [32]byte
	copy(key[:], seed)
	source := rand.NewChaCha8(key)
	return func(n int) []byte {
		b := make([]byte, n)
		source.Read(b)
		return b
	}
}

// example is n sources as an exchange has them, from a fixed seed.
func example(seed byte, n int) []source {
	draw := draws(seed)
	return []source{
		{"tls", draw(32), [][]byte{draw(32)}},
		{"kem", draw(32), [][]byte{draw(1184), draw(1088)}},
		{"qkd", draw(32), [][]byte{draw(16)}},
	}[:n]
}

// bare is n sources of which nothing is public.
func bare(draw func(int) []byte, n int) []source {
	return []source{{"tls", draw(32), nil}, {"kem", draw(32), nil}, {"qkd", draw(32), nil}}[:n]
}

// combined is what the product makes of sources.
func combined(name string, sources []source) ([]byte, error) {
	c, err := pqc.ParseCombiner(name)
	if err != nil {
		Fail(err.Error(), 1)
	}
	given := make([]pqc.Source, len(sources))
	for i, s := range sources {
		given[i] = pqc.Source{Name: s.name, Secret: s.secret, Public: s.public}
	}
	return c.Combine(domain, given...)
}

// mustCombine is called millions of times, which is why it does without Expect.
func mustCombine(name string, sources []source) []byte {
	key, err := combined(name, sources)
	if err != nil {
		Fail(err.Error(), 1)
	}
	return key
}

// xor is the sum of byte strings of one length.
func xor(first []byte, others ...[]byte) []byte {
	sum := append([]byte(nil), first...)
	for _, o := range others {
		subtle.XORBytes(sum, sum, o)
	}
	return sum
}
