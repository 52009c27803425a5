package handshake

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"pqlab/pqc"
	"pqlab/pqc/exchange"
	"pqlab/pqc/exchange/exchangetest"
)

func secrets() {
	DescribeTable("installs nothing when an end comes to secrets that hide nothing", func(ctx SpecContext, spoil func([]pqc.Source), want error) {
		for _, combiner := range pqc.Combiners() {
			a, b := pair(exchange.Config{Suites: smallest(), Combiner: combiner})
			unlucky := func(e *exchangetest.End) { e.Config.Combiner = spoiler{combiner, spoil} }
			x, y := twin(a, unlucky), twin(b, unlucky)
			v := meet(ctx, x, b)
			Expect(v.initiator).To(MatchError(want))
			Expect(v.responder).To(MatchError(exchange.Internal))
			untouched(x, b)
			v = meet(ctx, a, y)
			Expect(v.responder).To(MatchError(want))
			Expect(v.initiator).To(MatchError(exchange.Internal))
			untouched(a, y)
			stillWorks(ctx, a, b)
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
