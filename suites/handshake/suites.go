package handshake

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"pqlab/pqc"
	"pqlab/pqc/exchange"
	"pqlab/suites/testlab/gateways"
)

// specTime bounds a spec; none needs a tenth of it on an idle machine, and the longest needs two minutes on a very busy one.
const specTime = 6 * time.Minute

// patient is the deadline where every suite has its turn: with the race detector and on a busy machine Falcon's key
// generation takes so long that the default would be a test of the machine.
const patient = time.Minute

func everySuite() {
	for _, s := range pqc.Signatures() {
		It("gives both ends the same SAs with "+s.Name()+" and every KEM", func(ctx SpecContext) {
			for i, k := range pqc.KEMs() {
				suite := pqc.Suite{Signature: s, KEM: k}
				a, b := gateways.Pair(exchange.Config{Suites: []pqc.Suite{suite}, Combiner: pqc.Combiners()[i%2], Mutual: i%3 == 0, Deadline: patient})
				gateways.Succeeds(gateways.Meet(ctx, a, b))
				gateways.Keyed(a, b, gateways.TunnelName)
				for _, g := range []*gateways.Gateway{a, b} {
					Expect(g.Plane.Had(gateways.TunnelName)).To(Equal(gateways.Given{In: 1, Out: 1}))
					Expect((<-g.Reports).Suite).To(Equal(suite.String()))
				}
			}
		}, SpecTimeout(specTime))
	}
}
