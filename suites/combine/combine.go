// Package combine verifies that the keys of a tunnel are what the two secrets of its exchange make: recomputed outside
// the product from the secrets that a lab reveals, equal at both ends, and hidden from whoever lacks one of the two.
package combine

import (
	"bytes"
	"slices"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"pqlab/agent"
	"pqlab/lab"
	"pqlab/suites/testlab"
	"pqlab/topology"
)

// specTime bounds a spec; none needs a tenth of it.
const specTime = 3 * time.Minute

// Specs are the specs of the claim.
func Specs(e testlab.Env) {
	Describe("the combination of the keys", func() {
		Describe("in a lab", Label("emu", "vm"), func() {
			e.Guard()
			for _, c := range combiners() {
				It("makes the SAs of both ends from the two secrets: "+c.name, func(ctx SpecContext) {
					recomputed(ctx, e, c)
				}, SpecTimeout(specTime))
			}
			tlsGroups(e)
		})
		Describe("by itself", Label("emu"), func() {
			sensitive()
			secrecy()
			refused()
			relations()
			chosen()
			mixing()
		})
		Describe("in an exchange", Label("emu"), func() {
			e.Guard()
			swaps()
		})
	})
}

const tunnel = "ab"

// up makes a lab that reveals its secrets.
func up(ctx SpecContext, e testlab.Env, options ...topology.TunnelOption) *lab.Lab {
	GinkgoHelper()
	return e.Up(ctx, topology.New("combine").Host("a").Host("b").Fibre("a", "b").Tunnel(tunnel, "a", "b", options...),
		func(o *lab.Options) { o.Reveal = true })
}

// recomputed keys a tunnel, then rekeys it from either end.
func recomputed(ctx SpecContext, e testlab.Env, c combiner) {
	GinkgoHelper()
	l := up(ctx, e, topology.Combiner(c.name))
	var seen [][]byte // all secrets and keys so far
	for _, initiator := range []string{"a", "a", "b"} {
		if len(seen) == 0 {
			_, err := l.Tunnel(tunnel).Establish(ctx)
			Expect(err).NotTo(HaveOccurred())
		} else {
			_, err := l.Tunnel(tunnel).Rekey(ctx, initiator)
			Expect(err).NotTo(HaveOccurred())
		}
		responder := "b"
		if initiator == "b" {
			responder = "a"
		}
		i, r := secrets(ctx, l, initiator), secrets(ctx, l, responder)
		Expect(same(i, r)).To(BeTrue(), "both ends have the same sources and transcript")
		sources := sourcesOf(i)
		Expect([]string{sources[0].name, sources[1].name}).To(Equal([]string{"tls", "kem"}))
		Expect([]int{len(sources), len(sources[0].public), len(sources[1].public)}).To(Equal([]int{2, 1, 2}), "sources, and what is public of them")

		want := expand(c.key(sources), i.Transcript)
		expectSA(i.Out, want.toResponder)
		expectSA(r.In, want.toResponder)
		expectSA(i.In, want.toInitiator)
		expectSA(r.Out, want.toInitiator)
		Expect(i.Out.SPI).To(Equal(r.In.SPI))
		Expect(i.In.SPI).To(Equal(r.Out.SPI))

		for _, fresh := range [][]byte{sources[0].secret, sources[1].secret, i.Out.Key, i.In.Key, i.Transcript, i.In.Salt, i.Out.Salt} {
			Expect(slices.ContainsFunc(seen, func(b []byte) bool { return bytes.Equal(b, fresh) })).To(BeFalse(), "all is new, and differs by direction")
			seen = append(seen, fresh)
		}
	}
}

// secrets waits for nothing: an exchange is complete at its initiator after it is at its responder but for the outbound
// SA of the latter.
func secrets(ctx SpecContext, l *lab.Lab, node string) (s agent.Secrets) {
	GinkgoHelper()
	Eventually(ctx, func(g Gomega) {
		state, err := l.Tunnel(tunnel).State(ctx, node)
		g.Expect(err).NotTo(HaveOccurred())
		s, err = l.Tunnel(tunnel).Secrets(ctx, node)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect([]uint32{state.SPIs.In, state.SPIs.Out}).To(Equal([]uint32{s.In.SPI, s.Out.SPI}))
	}).Should(Succeed())
	return s
}

func sourcesOf(s agent.Secrets) (out []source) {
	for _, x := range s.Sources {
		out = append(out, source{x.Name, x.Secret, x.Public})
	}
	return out
}

func same(a, b agent.Secrets) bool {
	return a.Domain == b.Domain && bytes.Equal(a.Transcript, b.Transcript) &&
		slices.EqualFunc(a.Sources, b.Sources, func(x, y agent.SecretSource) bool {
			return x.Name == y.Name && bytes.Equal(x.Secret, y.Secret) && slices.EqualFunc(x.Public, y.Public, bytes.Equal)
		})
}

// expectSA compares without printing keys.
func expectSA(sa agent.InstalledSA, want [36]byte) {
	GinkgoHelper()
	Expect(bytes.Equal(sa.Key, want[:32])).To(BeTrue(), "the key of SPI %#x", sa.SPI)
	Expect(bytes.Equal(sa.Salt, want[32:])).To(BeTrue(), "the salt of SPI %#x", sa.SPI)
}

func tlsGroups(e testlab.Env) {
	DescribeTable("takes the classical secret of the TLS group that the tunnel asks for", func(ctx SpecContext, options []topology.TunnelOption, want string) {
		l := up(ctx, e, options...)
		report, err := l.Tunnel(tunnel).Establish(ctx)
		Expect(err).NotTo(HaveOccurred())
		Expect(report.TLSGroup).To(Equal(want))
		report, err = l.Tunnel(tunnel).Rekey(ctx, "b")
		Expect(err).NotTo(HaveOccurred())
		Expect(report.TLSGroup).To(Equal(want))
	},
		Entry("X25519 alone by default", nil, "X25519"),
		Entry("a hybrid one", []topology.TunnelOption{topology.OfferTLS("X25519MLKEM768")}, "X25519MLKEM768"),
		Entry("another classical one", []topology.TunnelOption{topology.OfferTLS("secp384r1")}, "CurveP384"),
	)
}
