package handshake

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"pqlab/pqc"
	"pqlab/pqc/exchange"
	"pqlab/pqc/exchange/exchangetest"
	"pqlab/suites/testlab/gateways"
)

func secrets() {
	DescribeTable("installs nothing when an end comes to secrets that hide nothing", func(ctx SpecContext, spoil func([]pqc.Source), want error) {
		for _, combiner := range pqc.Combiners() {
			a, b := gateways.Pair(exchange.Config{Suites: smallest(), Combiner: combiner})
			unlucky := func(e *exchangetest.End) { e.Config.Combiner = spoiler{combiner, spoil} }
			x, y := gateways.Twin(a, unlucky), gateways.Twin(b, unlucky)
			v := gateways.Meet(ctx, x, b)
			Expect(v.Initiator).To(MatchError(want))
			Expect(v.Responder).To(MatchError(exchange.Internal))
			gateways.Untouched(x, b)
			v = gateways.Meet(ctx, a, y)
			Expect(v.Responder).To(MatchError(want))
			Expect(v.Initiator).To(MatchError(exchange.Internal))
			gateways.Untouched(a, y)
			gateways.StillWorks(ctx, a, b)
		}
	},
		Entry("equal ones", func(s []pqc.Source) { s[1].Secret = s[0].Secret }, pqc.ErrEqualSecrets),
		Entry("a TLS secret of zeros", func(s []pqc.Source) { s[0].Secret = make([]byte, pqc.SecretSize) }, pqc.ErrZeroSecret),
		Entry("a KEM secret of zeros", func(s []pqc.Source) { s[1].Secret = make([]byte, pqc.SecretSize) }, pqc.ErrZeroSecret),
	)
}

// spoiler is a combiner that gets other secrets than the exchange made.
type spoiler struct {
	pqc.Combiner
	spoil func([]pqc.Source)
}

func (s spoiler) Combine(domain string, sources ...pqc.Source) ([]byte, error) {
	s.spoil(sources)
	return s.Combiner.Combine(domain, sources...)
}
