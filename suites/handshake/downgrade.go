package handshake

import (
	"crypto/tls"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"golang.org/x/crypto/cryptobyte"

	"pqlab/pqc"
	"pqlab/pqc/exchange"
	"pqlab/pqc/exchange/exchangetest"
	"pqlab/suites/testlab/gateways"
)

const strong, weak = "mldsa65+mlkem768", "mldsa44+kyber512"

func downgrades() {
	// The initiator wants the most; the responder, too weak or in need of peace, would be content with less; and somebody
	// between them, who has got into their TLS session, asks for less.
	type wish struct {
		initiator, responder func(*exchangetest.End)
		ask                  func(*wanted) // nil: nobody is between them
		found                error         // by the initiator
	}
	nothing := func(*exchangetest.End) {}
	DescribeTable("installs nothing that is less than what was wanted", func(ctx SpecContext, w wish) {
		x, y, err := exchangetest.Pair(exchange.Config{Suites: suites(strong, weak)})
		Expect(err).NotTo(HaveOccurred())
		w.initiator(&x)
		w.responder(&y)
		between := w.ask != nil
		x.Config.Tamper = func(m []byte) []byte {
			if between && m[0] == proposal {
				return rewrite(m, w.ask)
			}
			return m
		}
		a, b := gateways.Open(x, gateways.TunnelName), gateways.Open(y, gateways.TunnelName)
		v := gateways.Meet(ctx, a, b)
		Expect(v.Initiator).To(MatchError(w.found))
		Expect(refusal(v.Responder)).NotTo(BeNil())
		gateways.Untouched(a, b)

		between = false // and each meets one who wants the same
		gateways.StillWorks(ctx, a, gateways.Open(likeMinded(y, x), gateways.TunnelName))
		gateways.StillWorks(ctx, gateways.Open(likeMinded(x, y), gateways.TunnelName), b)
	},
		Entry("the better suite taken out of the proposal", wish{nothing, nothing,
			func(p *wanted) { p.suites = p.suites[1:] }, exchange.BadSignature}),
		Entry("the suites proposed the other way round", wish{nothing, nothing,
			func(p *wanted) { p.suites[0], p.suites[1] = p.suites[1], p.suites[0] }, exchange.BadSignature}),
		Entry("a suite put in", wish{func(e *exchangetest.End) { e.Config.Suites = e.Config.Suites[:1] }, nothing,
			func(p *wanted) { p.suites = []string{weak, strong} }, exchange.ErrDowngrade}),
		Entry("hardened made xor", wish{func(e *exchangetest.End) { e.Config.Combiner = pqc.Hardened{} }, nothing,
			func(p *wanted) { p.combiner = "xor" }, exchange.BadSignature}),
		Entry("mutual made one-sided", wish{func(e *exchangetest.End) { e.Config.Mutual = true }, nothing,
			func(p *wanted) { p.mutual = 0 }, exchange.BadSignature}),
		Entry("pinned made fresh", wish{pin, nothing, func(p *wanted) { p.pinned = 0 }, exchange.ErrPinnedKey}),
		Entry("ESP made UDP", wish{func(e *exchangetest.End) { e.Config.Encapsulation = exchange.ESP }, nothing,
			func(p *wanted) { p.encapsulation = 0 }, exchange.BadSignature}),

		Entry("a responder with another suite only", wish{func(e *exchangetest.End) { e.Config.Suites = e.Config.Suites[:1] },
			func(e *exchangetest.End) { e.Config.Suites = e.Config.Suites[1:] }, nil, exchange.Refused}),
		Entry("a responder with another combiner", wish{func(e *exchangetest.End) { e.Config.Combiner = pqc.Hardened{} }, nothing, nil, exchange.Refused}),
		Entry("a responder that wants no signature", wish{func(e *exchangetest.End) { e.Config.Mutual = true }, nothing, nil, exchange.Refused}),
		Entry("a responder that does not pin", wish{pin, nothing, nil, exchange.Refused}),
		Entry("a responder with another encapsulation", wish{func(e *exchangetest.End) { e.Config.Encapsulation = exchange.ESP }, nothing, nil, exchange.Refused}),
		Entry("a responder that knows X25519 only", wish{func(e *exchangetest.End) {
			e.Endpoint.TLSGroups = []tls.CurveID{tls.X25519MLKEM768, tls.X25519}
			e.Config.TLSGroups = e.Endpoint.TLSGroups[:1]
		}, nothing, nil, exchange.BadCertificate}),
	)

	It("installs nothing of a suite that the responder names and nobody proposed", func(ctx SpecContext) {
		r := newArena(exchange.Config{Suites: suites(strong)})
		for _, name := range []string{"mldsa65+kyber768", "mldsa44+mlkem768", "mldsa65+mlkem512", "mldsa00+mlkem000", ""} {
			r.strike(ctx, attack{at: offer, with: func(m []byte) []byte {
				body := append([]byte{byte(len(name))}, name...)
				body = append(body, m[headerSize+1+len(strong):]...)
				return append([]byte{offer, 0, byte(len(body) >> 8), byte(len(body))}, body...)
			}})
		}
		gateways.StillWorks(ctx, r.a, r.b)
	}, SpecTimeout(specTime))
}

// pin gives an end a long-lived key, and expects the same of its peer.
func pin(e *exchangetest.End) {
	k, err := e.Config.Suites[0].Signature.GenerateKey()
	Expect(err).NotTo(HaveOccurred())
	e.Config.Pinned = &exchange.Pinned{Own: k, Peer: public(k)}
}

// likeMinded is an end that trusts whom it trusted and wants what the other wants.
func likeMinded(e, other exchangetest.End) exchangetest.End {
	peer := e.Config.Peer
	e.Config = other.Config
	e.Config.Peer, e.Config.Tamper = peer, nil
	e.Endpoint.TLSGroups = other.Endpoint.TLSGroups
	return e
}

// wanted is what can be asked for in a proposal.
type wanted struct {
	suites                        []string
	combiner                      string
	pinned, mutual, encapsulation uint8
}

// rewrite makes another proposal of one, field by field as docs/exchange.md has them.
func rewrite(m []byte, change func(*wanted)) []byte {
	GinkgoHelper()
	var (
		w                               wanted
		tunnel, list, combiner, trigger cryptobyte.String
		version                         uint8
		spi                             uint32
	)
	s := cryptobyte.String(m[headerSize:])
	Expect(s.ReadUint8(&version) && s.ReadUint8LengthPrefixed(&tunnel) && s.ReadUint16LengthPrefixed(&list) &&
		s.ReadUint8LengthPrefixed(&combiner) && s.ReadUint8(&w.pinned) && s.ReadUint8(&w.mutual) && s.ReadUint32(&spi) &&
		s.ReadUint8(&w.encapsulation) && s.ReadUint8LengthPrefixed(&trigger)).To(BeTrue(), "a proposal")
	for !list.Empty() {
		var name cryptobyte.String
		Expect(list.ReadUint8LengthPrefixed(&name)).To(BeTrue())
		w.suites = append(w.suites, string(name))
	}
	w.combiner = string(combiner)
	change(&w)
	text := func(b *cryptobyte.Builder, t []byte) {
		b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(t) })
	}
	b := cryptobyte.NewBuilder(nil)
	b.AddUint8(proposal)
	b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) {
		b.AddUint8(version)
		text(b, tunnel)
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
			for _, name := range w.suites {
				text(b, []byte(name))
			}
		})
		text(b, []byte(w.combiner))
		b.AddUint8(w.pinned)
		b.AddUint8(w.mutual)
		b.AddUint32(spi)
		b.AddUint8(w.encapsulation)
		text(b, trigger)
		b.AddBytes(s)
	})
	return b.BytesOrPanic()
}
