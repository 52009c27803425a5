package rekey

import (
	"net/netip"
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
		sink := testlab.Listen(ctx, r.Lab, "b", netip.AddrPortFrom(r.inner("b"), 0))
		source := testlab.Listen(ctx, r.Lab, "a", netip.AddrPortFrom(r.inner("a"), 0))
		say := func(text string) {
			GinkgoHelper()
			_, err := source.WriteTo([]byte(text), sink.LocalAddr())
			Expect(err).NotTo(HaveOccurred())
		}
		hear := func(text string) {
			GinkgoHelper()
			buf := make([]byte, 100)
			n, err := sink.Read(buf)
			Expect(err).NotTo(HaveOccurred())
			Expect(string(buf[:n])).To(Equal(text))
		}

		// Three packets leave under the old SA and are held back on the fibre.
		recording := testlab.Record(r.Lab, "a-b")
		restore := testlab.Divert(r.Lab, "a-b", "a")
		held := []string{"at once", "in time", "at last"} // of one length
		for _, text := range held {
			say(text)
		}
		outer, packets := recording.ESP(ctx, r.tunnel.Plan.OuterA, sealed(28+len(held[0])), len(held))
		restore()
		late := testlab.Inject(r.Lab, "a-b", "a")
		late.ESP(outer, packets[0])
		hear(held[0])

		_, err := r.tunnel.Rekey(ctx, "a")
		Expect(err).NotTo(HaveOccurred())
		r.rekeyed(ctx, 1)
		Expect(r.state(ctx, "b").SPIs.In).NotTo(Equal(old.Out))
		Expect(r.Advance(ctx, ipsec.DefaultGrace-time.Millisecond)).To(Succeed())
		late.ESP(outer, packets[1])
		hear(held[1])
		late.ESP(outer, packets[1], packets[0])
		say("fence")
		hear("fence")
		Expect(r.state(ctx, "b").Drops).To(Equal(ipsec.Drops{Replay: 2}), "the old SA's window is still there")

		Expect(r.Advance(ctx, time.Millisecond)).To(Succeed())
		r.events.Until(ctx, "retired at both ends", func(all []agent.Event) bool { return len(only(all, ipsec.Retired)) == 2 })
		late.ESP(outer, packets...)
		say("fence")
		hear("fence")
		rest, err := r.Node("b").Agent().TunnelState(ctx, "")
		Expect(err).NotTo(HaveOccurred())
		Expect(rest.Drops).To(Equal(ipsec.Drops{UnknownSPI: uint64(len(packets))}))
		Expect(r.state(ctx, "b").Drops).To(Equal(ipsec.Drops{Replay: 2}))
		for _, event := range only(r.events.All(), ipsec.Retired) {
			if event.Node == "b" {
				Expect(event.Old.In).To(Equal(old.Out))
				Expect(event.Replaced.In.Packets).To(Equal(uint64(2)), "the final count has the late one")
			}
		}
	}, NodeTimeout(timeout), Label(testlab.Provokes))
}
