package rekey

import (
	"sync"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"pqlab/ipsec"
	"pqlab/lab"
	"pqlab/suites/testlab"
	"pqlab/topology"
)

func onDemand(e testlab.Env) {
	It("rekeys on demand from either end", func(ctx SpecContext) {
		r := up(ctx, e, describe(topology.Limits{}), nil)
		for i, from := range []string{"a", "b", "b", "a"} {
			report, err := r.tunnel.Rekey(ctx, from)
			Expect(err).NotTo(HaveOccurred())
			initiator, _ := r.rekeyed(ctx, i+1)
			Expect(initiator.Node).To(Equal(from))
			Expect(initiator.Trigger).To(Equal(ipsec.OnDemand))
			Expect([]uint32{report.In, report.Out}).To(Equal([]uint32{initiator.New.In, initiator.New.Out}))
			Expect(r.state(ctx, from).SPIs).To(Equal(initiator.New))
		}
	}, NodeTimeout(timeout))

	It("ends with one pair of SAs, the same at both ends, where both begin at once", func(ctx SpecContext) {
		r := up(ctx, e, describe(topology.Limits{}), func(o *lab.Options) { o.Reveal = true })
		const rounds = 30
		for range rounds {
			r.demandBoth(ctx)
			r.matched(ctx)
		}
		// When the grace of what was replaced is over, one SA in each direction is all that there is.
		r.events.Settled(ctx)
		for _, node := range []string{"a", "b"} {
			spis := r.matched(ctx)[node]
			secrets, err := r.tunnel.Secrets(ctx, node)
			Expect(err).NotTo(HaveOccurred())
			Expect(secrets.Inbound).To(And(HaveLen(1), HaveKey(spis.In)))
			Expect(secrets.Outbound).To(And(HaveLen(1), HaveKey(spis.Out)))
		}
		testlab.Calm(r.events.All())
		begins := map[string]int{}
		for _, event := range testlab.Only(r.events.All(), ipsec.Rekeyed) {
			if event.Initiator {
				begins[event.Node]++
			}
		}
		GinkgoWriter.Printf("%d rounds of two demands: exchanges begun by %v\n", rounds, begins)
		Expect(begins["a"]+begins["b"]).To(BeNumerically("~", rounds*3/2, rounds/2), "one or two exchanges for each two demands")
	}, NodeTimeout(timeout))
}

// demandBoth demands a rekey from both ends at the same moment, and returns when both have one.
func (r *rig) demandBoth(ctx SpecContext) {
	GinkgoHelper()
	var both sync.WaitGroup
	var errs [2]error
	start := make(chan struct{})
	for i, from := range []string{"a", "b"} {
		both.Go(func() {
			<-start
			_, errs[i] = r.tunnel.Rekey(ctx, from)
		})
	}
	close(start)
	both.Wait()
	Expect(errs[:]).To(HaveEach(BeNil()))
}

// matched checks that what one end sends on the other receives on.
func (r *rig) matched(ctx SpecContext) map[string]ipsec.SPIPair {
	GinkgoHelper()
	a, b := r.state(ctx, "a").SPIs, r.state(ctx, "b").SPIs
	Expect(a.In).NotTo(BeZero())
	Expect(a.Out).NotTo(BeZero())
	Expect(b).To(Equal(ipsec.SPIPair{In: a.Out, Out: a.In}))
	return map[string]ipsec.SPIPair{"a": a, "b": b}
}
