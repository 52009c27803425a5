package combine

import (
	"bytes"
	"crypto/sha512"
	"fmt"
	"slices"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

func sensitive() {
	for _, c := range combiners() {
		It("changes both SAs with every bit of every secret: "+c.name, func() {
			for _, n := range numbers() {
				sources, h := example(1, n), sha512.Sum384([]byte("transcript"))
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
			}
		})
	}
	It("changes the key with every public value, and with the order of the sources: hardened", func() {
		sources := example(2, 3)
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
		for i := range sources {
			sources[i], sources[0] = sources[0], sources[i]
			Expect(bytes.Equal(mustCombine("hardened", sources), key)).To(Equal(i == 0))
			sources[i], sources[0] = sources[0], sources[i]
		}
	})
	It("takes no notice of public values: xor", func() {
		sources := example(2, 3)
		key := mustCombine("xor", sources)
		for i := range sources {
			sources[i].public = nil
		}
		Expect(bytes.Equal(mustCombine("xor", sources), key)).To(BeTrue())
	})
}

// differs says that key and salt both do.
func differs(a, b [36]byte) bool { return !bytes.Equal(a[:32], b[:32]) && !bytes.Equal(a[32:], b[32:]) }

// secrecy: the adversary has chosen all secrets but one, the worst that is allowed, and the honest one is uniform.
func secrecy() {
	for _, c := range combiners() {
		It("tells nothing to whoever knows all of two or three secrets but one: "+c.name, func() {
			for _, n := range numbers() {
				for honest := range n {
					By(fmt.Sprintf("%d sources, the secret of %d unknown", n, honest))
					one(c, n, honest)
				}
			}
		})
	}
	It("is a permutation of any one secret, byte by byte, whatever the other one or two are: xor", func() {
		for _, n := range numbers() {
			By(fmt.Sprintf("%d sources", n))
			permutes(n)
		}
	})
}

// one of n sources is honest.
func one(c combiner, n, honest int) {
	GinkgoHelper()
	sources, h := example(3, n), sha512.Sum384([]byte("transcript"))
	for i := range sources {
		sources[i].secret = append(make([]byte, 31), byte(1+i))
	}
	draw := draws(4, byte(n), byte(honest))
	var keys, sas tally
	for range samples {
		sources[honest].secret = draw(32)
		key := mustCombine(c.name, sources)
		keys.add(key)
		if n == 2 { // SAs do not depend on it further than by the key
			sa := expand([32]byte(key), h[:])
			sas.add(slices.Concat(sa.toResponder[:], sa.toInitiator[:]))
		}
	}
	keys.expectUniform("key")
	if n == 2 {
		sas.expectUniform("SAs")
	}
}

// permutes: for given secrets of all sources but one, xor maps the last secret to the key byte by byte, and every byte by a
// permutation; so it is a permutation of all secrets, and a uniform secret gives a uniform key, whatever the others are.
func permutes(n int) {
	GinkgoHelper()
	draw := draws(5, byte(n))
	for at := 0; at < 32; at += stride {
		honest, known, third := at%n, (at+1)%n, draw(32)
		var column [256][256]bool // of the values of the honest byte: what the key has taken
		for k := range 256 {
			sources := bare(draw, n) // all other bytes are new each time
			if n > 2 {
				sources[(at+2)%n].secret = third
			}
			sources[known].secret[at] = byte(k)
			before := mustCombine("xor", sources)
			var row [256]bool // what the key has taken
			for v := range 256 {
				sources[honest].secret[at] = byte(v)
				key := mustCombine("xor", sources)
				if row[key[at]] || column[v][key[at]] {
					Fail(fmt.Sprintf("byte %d of the key is %d twice, at last of %d and %d", at, key[at], v, k))
				}
				row[key[at]], column[v][key[at]] = true, true
				key[at] = before[at]
				if !bytes.Equal(key, before) {
					Fail(fmt.Sprintf("other bytes of the key depend on byte %d", at))
				}
			}
		}
	}
}
