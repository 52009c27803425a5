package combine

import (
	"bytes"
	"fmt"
	"math/bits"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"pqlab/pqc"
)

// attacks by mix-and-match that each spec makes.
const attacks = 50

// keypairs is somebody who decapsulates with two KEMs what anybody sends, combines the two secrets, and a QKD key if there
// is one, and says what came of it: the oracle of an attack with chosen ciphertexts.
type keypairs struct {
	kems [2]pqc.KEM
	keys [2]pqc.DecapsulationKey
	qkd  []source
}

func newKeypairs(first, second pqc.KEM, qkd ...source) *keypairs {
	GinkgoHelper()
	p := &keypairs{kems: [2]pqc.KEM{first, second}, qkd: qkd}
	for i, k := range p.kems {
		var err error
		p.keys[i], err = k.GenerateKey()
		Expect(err).NotTo(HaveOccurred())
	}
	return p
}

// encapsulate makes a ciphertext for each of the two keys.
func (p *keypairs) encapsulate() (ciphertexts, secrets [2][]byte) {
	GinkgoHelper()
	for i, k := range p.keys {
		key, err := p.kems[i].ParseEncapsulationKey(k.EncapsulationKey())
		Expect(err).NotTo(HaveOccurred())
		ciphertexts[i], secrets[i], err = key.Encapsulate()
		Expect(err).NotTo(HaveOccurred())
	}
	return ciphertexts, secrets
}

// key is what the combiner makes of two secrets and their ciphertexts.
func (p *keypairs) key(combiner string, ciphertexts, secrets [2][]byte) []byte {
	var s []source
	for i, name := range []string{"first", "second"} {
		s = append(s, source{name, secrets[i], [][]byte{p.keys[i].EncapsulationKey(), ciphertexts[i]}})
	}
	return mustCombine(combiner, append(s, p.qkd...))
}

// decapsulate is the oracle.
func (p *keypairs) decapsulate(combiner string, ciphertexts [2][]byte) []byte {
	return p.key(combiner, ciphertexts, [2][]byte{p.secret(0, ciphertexts[0]), p.secret(1, ciphertexts[1])})
}

func (p *keypairs) secret(which int, ciphertext []byte) []byte {
	secret, err := p.keys[which].Decapsulate(ciphertext)
	if err != nil {
		Fail(err.Error(), 1)
	}
	return secret
}

// mixing is the attack of Bindel, Brendel, Fischlin, Goncalves and Stebila (PQCrypto 2019, eprint 2018/903) on two KEMs that
// are both IND-CCA secure.
func mixing() {
	// guess gives the key that the adversary wants, and what he makes of the oracle's answers to three pairs of
	// ciphertexts of which none is the one that he wants the key of.
	guess := func(trial int, combiner string, qkd ...source) (want, got []byte) {
		kems := pqc.KEMs()
		p := newKeypairs(kems[trial%len(kems)], kems[trial/len(kems)%len(kems)], qkd...)
		c, secrets := p.encapsulate()
		d, _ := p.encapsulate()
		oracle := func(x, y []byte) []byte { return p.decapsulate(combiner, [2][]byte{x, y}) }
		return p.key(combiner, c, secrets), xor(oracle(c[0], d[1]), oracle(d[0], c[1]), oracle(d[0], d[1]))
	}
	It(fmt.Sprintf("is broken by mix and match of the ciphertexts of two KEMs, %d times of %d, and so beside a QKD key: xor", attacks, attacks), func() {
		for _, n := range numbers() {
			for trial := range attacks {
				want, got := guess(trial, "xor", example(20, 3)[2:n]...)
				Expect(bytes.Equal(got, want)).To(BeTrue(), "%d sources, trial %d", n, trial)
			}
		}
	})
	It(fmt.Sprintf("is not broken by mix and match of the ciphertexts of two KEMs, 0 times of %d, nor beside a QKD key: hardened", attacks), func() {
		for _, n := range numbers() {
			wrong := 0
			for trial := range attacks {
				want, got := guess(trial, "hardened", example(20, 3)[2:n]...)
				Expect(bytes.Equal(got, want)).To(BeFalse(), "%d sources, trial %d", n, trial)
				for _, b := range xor(got, want) {
					wrong += bits.OnesCount8(b)
				}
			}
			// As far from the key as from any other: of 12800 fair bits 6400 are wrong, and 6 standard deviations are 339.
			Expect(wrong).To(BeNumerically("~", 128*attacks, 339), "bits that are wrong, %d sources", n)
		}
	})
	It("changes the key with every bit of every ciphertext: xor and hardened", func() {
		p := newKeypairs(kem("kyber512"), kem("mlkem512"))
		c, secrets := p.encapsulate()
		var keys [][]byte
		for _, combiner := range combiners() {
			keys = append(keys, p.key(combiner.name, c, secrets))
		}
		eachFlipped(&c, func(which, bit int) {
			others := secrets
			others[which] = p.secret(which, c[which])
			for i, combiner := range combiners() {
				if bytes.Equal(p.key(combiner.name, c, others), keys[i]) {
					Fail(fmt.Sprintf("%s: not with bit %d of ciphertext %d", combiner.name, bit, which))
				}
			}
		})
	})
	It("gives the key of a ciphertext away for another that its KEM takes for the same: xor", func() {
		p, c, secrets := withCareless()
		key := p.key("xor", c, secrets)
		c[1][len(c[1])-1] ^= 1
		Expect(bytes.Equal(p.decapsulate("xor", c), key)).To(BeTrue())
	})
	It("does not give the key of a ciphertext away for another that its KEM takes for the same: hardened", func() {
		p, c, secrets := withCareless()
		key := p.key("hardened", c, secrets)
		eachFlipped(&c, func(which, bit int) { // as if no KEM took notice of anything
			if bytes.Equal(p.key("hardened", c, secrets), key) {
				Fail(fmt.Sprintf("for bit %d of ciphertext %d", bit, which))
			}
		})
		c[1][len(c[1])-1] ^= 1
		Expect(bytes.Equal(p.decapsulate("hardened", c), key)).To(BeFalse())
	})
}

// eachFlipped has each bit of two ciphertexts wrong for once.
func eachFlipped(c *[2][]byte, f func(which, bit int)) {
	for which := range c {
		for bit := 0; bit < 8*len(c[which]); bit += stride {
			c[which][bit/8] ^= 1 << (bit % 8)
			f(which, bit)
			c[which][bit/8] ^= 1 << (bit % 8)
		}
	}
}

// withCareless is two KEMs of which the second is as weak as a KEM beside a good one may be, and a ciphertext of each.
func withCareless() (p *keypairs, ciphertexts, secrets [2][]byte) {
	GinkgoHelper()
	p = newKeypairs(kem("kyber512"), kem("mlkem512"))
	ciphertexts, secrets = p.encapsulate()
	p.keys[1] = careless{p.keys[1]}
	ciphertexts[1] = append(ciphertexts[1], 0)
	return p, ciphertexts, secrets
}

// careless takes no notice of the last byte of a ciphertext.
type careless struct{ pqc.DecapsulationKey }

func (c careless) Decapsulate(ciphertext []byte) ([]byte, error) {
	return c.DecapsulationKey.Decapsulate(ciphertext[:len(ciphertext)-1])
}

func kem(name string) pqc.KEM {
	GinkgoHelper()
	k, err := pqc.ParseKEM(name)
	Expect(err).NotTo(HaveOccurred())
	return k
}
