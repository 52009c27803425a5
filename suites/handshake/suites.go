package handshake

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"pqlab/pqc"
	"pqlab/pqc/exchange"
)

// specTime bounds a spec; none needs a tenth of it.
const specTime = 2 * time.Minute

func everySuite() {
	for _, s := range pqc.Signatures() {
		It("gives both ends the same SAs with "+s.Name()+" and every KEM", func(ctx SpecContext) {
			for i, k := range pqc.KEMs() {
				suite := pqc.Suite{Signature: s, KEM: k}
				a, b := pair(exchange.Config{Suites: []pqc.Suite{suite}, Combiner: pqc.Combiners()[i%2], Mutual: i%3 == 0})
				succeeds(meet(ctx, a, b))
				keyed(a, b, tunnelName)
				for _, g := range []*gateway{a, b} {
					Expect(g.plane.had(tunnelName)).To(Equal(given{In: 1, Out: 1}))
					Expect((<-g.reports).Suite).To(Equal(suite.String()))
				}
			}
		}, SpecTimeout(specTime))
	}
}
