package rekey

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"pqlab/agent"
	"pqlab/ipsec"
	"pqlab/suites/testlab"
	"pqlab/topology"
)

func grace(e testlab.Env) {
	It("takes what is late on an SA that was replaced until its grace is over, and nothing then", func(ctx SpecContext) {
		r := up(ctx, e, describe(topology.Limits{}), manual)
		old := r.state(ctx, "a").SPIs
		source, sink := testlab.Open(ctx, r.Lab, "a", r.inner("a")), testlab.Open(ctx, r.Lab, "b", r.inner("b"))

		// Three packets leave under the old SA and are held back on the fibre.
		held := [][]byte{[]byte("at once"), []byte("in time"), []byte("at last")} // of one length
		outer, packets := testlab.Held{Link: "a-b", Node: "a", From: r.tunnel.Plan.OuterA}.Packets(ctx, r.Lab, source, sink, held...)
		late := testlab.Inject(r.Lab, "a-b", "a")
		late.ESP(outer, packets[0])
		sink.Expect(held[0])

		_, err := r.tunnel.Rekey(ctx, "a")
		Expect(err).NotTo(HaveOccurred())
		r.rekeyed(ctx, 1)
		Expect(r.state(ctx, "b").SPIs.In).NotTo(Equal(old.Out))
		Expect(r.Advance(ctx, ipsec.DefaultGrace-time.Millisecond)).To(Succeed())
		late.ESP(outer, packets[1])
		sink.Expect(held[1])
		late.ESP(outer, packets[1], packets[0])
		testlab.Pass(source, sink, []byte("fence"))
		drops := func() ipsec.Drops { return r.state(ctx, "b").Drops }
		Eventually(ctx, drops).Should(Equal(ipsec.Drops{Replay: 2}), "the old SA's window is still there")

		Expect(r.Advance(ctx, time.Millisecond)).To(Succeed())
		r.events.Until(ctx, "retired at both ends", func(all []agent.Event) bool { return len(testlab.Only(all, ipsec.Retired)) == 2 })
		late.ESP(outer, packets...)
		testlab.Pass(source, sink, []byte("fence"))
		Eventually(ctx, func() ipsec.Drops {
			rest, err := r.Node("b").Agent().TunnelState(ctx, "")
			Expect(err).NotTo(HaveOccurred())
			return rest.Drops
		}).Should(Equal(ipsec.Drops{UnknownSPI: uint64(len(packets))}))
		Expect(drops()).To(Equal(ipsec.Drops{Replay: 2}))
		for _, event := range testlab.Only(r.events.All(), ipsec.Retired) {
			if event.Node == "b" {
				Expect(event.Old.In).To(Equal(old.Out))
				Expect(event.Replaced.In.Packets).To(Equal(uint64(2)), "the final count has the late one")
			}
		}
	}, NodeTimeout(timeout), Label(testlab.Provokes))
}
