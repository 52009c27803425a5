package combine

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"pqlab/pqc"
	"pqlab/pqc/exchange"
	"pqlab/pqc/exchange/exchangetest"
	"pqlab/suites/testlab/gateways"
)

// identities is how the ends of a tunnel sign.
type identities struct {
	name           string
	pinned, mutual bool
}

func allIdentities() []identities {
	return []identities{{"fresh", false, false}, {"fresh, mutual", false, true}, {"pinned", true, false}, {"pinned, mutual", true, true}}
}

// Messages by their types, and the length of their headers, as in docs/exchange.md.
const (
	proposal     = 1
	offer        = 2
	answer       = 3
	confirmation = 4
	done         = 5
	header       = 4
)

// ends makes a pair for an exchange. The suite is the smallest.
func ends(combiner string, i identities) (initiator, responder exchangetest.End) {
	GinkgoHelper()
	suite, err := pqc.ParseSuite("mldsa44+mlkem512")
	Expect(err).NotTo(HaveOccurred())
	c, err := pqc.ParseCombiner(combiner)
	Expect(err).NotTo(HaveOccurred())
	initiator, responder, err = exchangetest.Pair(exchange.Config{Suites: []pqc.Suite{suite}, Combiner: c, Mutual: i.mutual})
	Expect(err).NotTo(HaveOccurred())
	if i.pinned {
		Expect(exchangetest.Pinned(&initiator, &responder)).To(Succeed())
	}
	return initiator, responder
}

// The man in the middle of these specs is inside the TLS session: he reads and writes what passes there, as somebody
// could who computes X25519 in time. Outside of it nobody comes near a ciphertext (suite handshake).
func swaps() {
	for _, c := range combiners() {
		It("installs no SA for a man in the middle who swaps in the ciphertext of another exchange, though the KEM takes it: "+c.name, func(ctx SpecContext) {
			for _, i := range allIdentities() {
				By(i.name)
				replayed(ctx, c, i)
			}
		}, SpecTimeout(specTime))
		It("installs no SA when a bit of the ciphertext is wrong: "+c.name, func(ctx SpecContext) {
			for _, i := range allIdentities() {
				By(i.name)
				flipped(ctx, c, i)
			}
		}, SpecTimeout(specTime))
		for _, i := range allIdentities() {
			whom := "the responder and not the initiator"
			if i.pinned && i.mutual {
				whom = "nobody"
			}
			It(fmt.Sprintf("deceives %s when a man in the middle swaps in a ciphertext of his own (%s): %s", whom, i.name, c.name), func(ctx SpecContext) {
				own(ctx, c, i)
			}, SpecTimeout(specTime))
		}
	}
}

// stopped says how a responder finds a ciphertext that is not the initiator's, when the rest of the answer is.
func stopped(i identities, err error) {
	GinkgoHelper()
	if i.mutual {
		Expect(err).To(MatchError(pqc.ErrSignature))
		Expect(err).To(MatchError(exchange.BadSignature))
	} else {
		Expect(err).To(MatchError(exchange.BadConfirm))
	}
}

// replayed is what mix-and-match needs, and more than a tunnel ever gives it: the responder uses a KEM key again, so that
// the ciphertext of one exchange has the same secret in another.
func replayed(ctx SpecContext, c combiner, i identities) {
	GinkgoHelper()
	x, y := ends(c.name, i)
	again, err := x.Config.Suites[0].KEM.GenerateKey()
	Expect(err).NotTo(HaveOccurred())
	y.Config.Suites = []pqc.Suite{{Signature: y.Config.Suites[0].Signature, KEM: reusing{y.Config.Suites[0].KEM, again}}}

	var ciphertext, secret, decapsulated []byte
	x.Config.Tamper = func(m []byte) []byte {
		if m[0] == answer {
			ciphertext = bytes.Clone(ciphertextOf(m))
		}
		return m
	}
	y.Config.Reveal = func(s exchange.Secrets) { secret = s.Sources[1].Secret }
	a, b := gateways.Open(x, gateways.TunnelName), gateways.Open(y, gateways.TunnelName)
	gateways.Succeeds(gateways.Meet(ctx, a, b))
	gateways.Keyed(a, b, gateways.TunnelName)

	mitm := gateways.Twin(a, func(e *exchangetest.End) {
		e.Config.Tamper = func(m []byte) []byte {
			if m[0] == answer {
				m = bytes.Clone(m)
				copy(ciphertextOf(m), ciphertext)
			}
			return m
		}
	})
	victim := gateways.Twin(b, func(e *exchangetest.End) {
		e.Config.Reveal = func(s exchange.Secrets) { decapsulated = s.Sources[1].Secret }
	})
	v := gateways.Meet(ctx, mitm, victim)
	stopped(i, v.Responder)
	Expect(v.Initiator).To(HaveOccurred())
	gateways.Untouched(mitm, victim)
	if i.mutual {
		Expect(decapsulated).To(BeNil(), "the signature is verified first")
	} else {
		Expect(bytes.Equal(decapsulated, secret)).To(BeTrue(), "the KEM takes the ciphertext")
	}
	if i.mutual && !i.pinned { // then he may sign it himself
		m := &man{combiner: c, suite: x.Config.Suites[0], signs: true, found: ciphertext}
		mitm = gateways.Twin(a, m.takesOver)
		hears := gateways.Twin(victim, func(e *exchangetest.End) { e.Config.Tamper = m.sees })
		Expect(gateways.Meet(ctx, mitm, hears).Responder).To(MatchError(exchange.BadConfirm))
		Expect(bytes.Equal(decapsulated, secret)).To(BeTrue(), "the KEM takes the ciphertext")
		gateways.Untouched(mitm, hears)
	}
}

// flipped tries bits all over a ciphertext.
func flipped(ctx SpecContext, c combiner, i identities) {
	GinkgoHelper()
	x, y := ends(c.name, i)
	a, b := gateways.Open(x, gateways.TunnelName), gateways.Open(y, gateways.TunnelName)
	var bit int
	mitm := gateways.Twin(a, func(e *exchangetest.End) {
		e.Config.Tamper = func(m []byte) []byte {
			if m[0] == answer {
				m = bytes.Clone(m)
				ciphertextOf(m)[bit/8] ^= 1 << (bit % 8)
			}
			return m
		}
	})
	draw, last := rand.New(rand.NewPCG(21, 0)), 8*x.Config.Suites[0].KEM.CiphertextSize()-1
	bits := []int{0, last}
	for range 30 {
		bits = append(bits, draw.IntN(last))
	}
	for _, bit = range bits {
		v := gateways.Meet(ctx, mitm, b)
		stopped(i, v.Responder)
		Expect(v.Initiator).To(HaveOccurred())
		gateways.Untouched(mitm, b)
	}
	gateways.StillWorks(ctx, a, b)
}

// ciphertextOf is a part of an answer.
func ciphertextOf(m []byte) []byte {
	n := int(binary.BigEndian.Uint16(m[header:]))
	return m[header+2 : header+2+n]
}

// reusing is a KEM with one key for all times.
type reusing struct {
	pqc.KEM
	key pqc.DecapsulationKey
}

func (r reusing) GenerateKey() (pqc.DecapsulationKey, error) { return kept{r.key}, nil }

type kept struct{ pqc.DecapsulationKey }

func (kept) Wipe() {}

// own: the man in the middle knows the TLS secret, takes the initiator's answer away, and finishes the exchange with a
// ciphertext of his own making. He holds no pinned key.
func own(ctx SpecContext, c combiner, i identities) {
	GinkgoHelper()
	x, y := ends(c.name, i)
	a, b := gateways.Open(x, gateways.TunnelName), gateways.Open(y, gateways.TunnelName)
	m := &man{combiner: c, suite: x.Config.Suites[0], signs: i.mutual && !i.pinned}
	from := gateways.Twin(a, m.takesOver)
	to := gateways.Twin(b, func(e *exchangetest.End) { e.Config.Tamper = m.sees })
	v := gateways.Meet(ctx, from, to)
	if i.pinned && i.mutual {
		stopped(i, v.Responder)
		m.signs = true
		Expect(gateways.Meet(ctx, from, to).Responder).To(MatchError(exchange.ErrPinnedKey))
		gateways.Untouched(from, to)
		return
	}
	Expect(v.Initiator).To(MatchError(exchange.BadConfirm))
	gateways.Untouched(from)
	Expect(v.Responder).NotTo(HaveOccurred())
	in, out := to.Plane.Standing(to.Name)
	Expect(in).To(HaveLen(1))
	Expect(out != nil).To(BeTrue())
	Expect(bytes.Equal(append(in[0].Key[:], in[0].Salt[:]...), m.keys.toResponder[:])).To(BeTrue(), "he has the key")
	Expect(bytes.Equal(append(out.Key[:], out.Salt[:]...), m.keys.toInitiator[:])).To(BeTrue(), "he has the other key")
}
