package handshake

import (
	"context"
	"net"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"pqlab/pqc/exchange"
	"pqlab/pqc/exchange/exchangetest"
	"pqlab/suites/testlab/gateways"
)

func relays() {
	thieves := []struct {
		name                 string
		initiator, responder bool // whose certificate he has stolen
	}{
		{"who has stolen both certificates", true, true}, {"who has stolen the responder's", false, true}, {"who has stolen none", false, false},
	}
	for _, mode := range []struct {
		name           string
		pinned, mutual bool
	}{{"fresh", false, false}, {"fresh, mutual", false, true}, {"pinned", true, false}, {"pinned, mutual", true, true}} {
		for _, t := range thieves {
			It("installs nothing for a man in the middle of the TLS session "+t.name+" ("+mode.name+")", func(ctx SpecContext) {
				x, y, err := exchangetest.Pair(exchange.Config{Suites: smallest(), Mutual: mode.mutual})
				Expect(err).NotTo(HaveOccurred())
				if mode.pinned {
					Expect(exchangetest.Pinned(&x, &y)).To(Succeed())
				}
				a, b := gateways.Open(x, gateways.TunnelName), gateways.Open(y, gateways.TunnelName)
				asResponder, asInitiator := identity(), identity()
				if t.responder {
					asResponder = y.Endpoint.Certificate
				}
				if t.initiator {
					asInitiator = x.Endpoint.Certificate
				}
				type passed struct{ there, back int64 }
				relay := make(chan passed, 1)
				a.Goes(func(dialling context.Context) (net.Conn, error) {
					mine, his, err := exchangetest.Loopback()
					if err != nil {
						return nil, err
					}
					on, err := b.Connect(dialling)
					if err != nil {
						return nil, err
					}
					go func() {
						there, back, _ := exchangetest.Relay(ctx, his, on, asResponder, asInitiator)
						relay <- passed{there, back}
					}()
					return mine, nil
				})
				v := gateways.Along(ctx, a, b)
				p := <-relay
				gateways.Untouched(a, b)
				Expect(refusal(v.Responder)).NotTo(BeNil())
				switch {
				case t.initiator && t.responder: // all was passed on until the signature
					Expect(p.there).To(BeNumerically(">", 60))
					Expect(p.back).To(BeNumerically(">", 4000))
					Expect(v.Initiator).To(MatchError(exchange.BadSignature))
				case t.responder:
					Expect(p.there).To(BeNumerically(">", 60))
					Expect(v.Initiator).To(MatchError(exchange.Refused))
					Expect(v.Responder).To(MatchError(exchange.ErrUntrusted))
				default:
					Expect(p).To(Equal(passed{}))
					Expect(v.Initiator).To(MatchError(exchange.ErrUntrusted))
				}
				gateways.StillWorks(ctx, a, b)
			}, SpecTimeout(specTime))
		}
	}
}
