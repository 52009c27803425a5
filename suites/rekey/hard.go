package rekey

import (
	"encoding/binary"
	"fmt"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"pqlab/agent"
	"pqlab/ipsec"
	"pqlab/suites/testlab"
	"pqlab/topology"
)

func hardLimits(e testlab.Env) {
	// The peer has the tunnel no more, so every exchange fails, while packets go on being sent.
	for _, limit := range []struct {
		trigger ipsec.Trigger
		limits  topology.Limits
		size    int
		last    uint64 // packets, of which the next would pass the hard limit, four times the soft one
	}{
		{ipsec.ByPackets, topology.Limits{Packets: 100}, 200, 400},
		{ipsec.ByBlocks, topology.Limits{Blocks: 1000}, 102, 4000 / 7},
		{ipsec.ByBytes, topology.Limits{Bytes: 16000}, 1401, 64000 / 1404},
	} {
		It(fmt.Sprintf("sends nothing beyond the hard limit of %s, and nothing in the clear", limit.trigger), func(ctx SpecContext) {
			r := up(ctx, e, describe(limit.limits), nil)
			spi := r.state(ctx, "a").SPIs.Out
			Expect(r.Node("b").Agent().RemoveTunnel(ctx, tunnelName)).To(Succeed())
			recording := testlab.Record(r.Lab, "a-b")
			const sent = uint64(1000)
			got := r.packets("a", sent, limit.size).Run(ctx, r.Lab)
			Expect(got.Received).To(BeZero(), "nothing gets into a tunnel that has no other end")

			all := r.events.Until(ctx, "expired", func(all []agent.Event) bool { return len(testlab.Only(all, ipsec.Expired)) > 0 })
			Expect(testlab.Only(all, ipsec.Expired)).To(ConsistOf(And(
				HaveField("Node", "a"), HaveField("Trigger", limit.trigger), HaveField("Old.Out", spi),
			)))
			r.events.Until(ctx, "a rekey was tried", func(all []agent.Event) bool {
				for _, e := range testlab.Only(all, ipsec.Failed) {
					if e.Node == "a" && e.Initiator && e.Trigger == limit.trigger {
						return true
					}
				}
				return false
			})
			last := limit.last
			refused := Equal(sent - last)
			if r.kernel {
				refused = BeNumerically(">", 0) // it counts many packets that were sent together as one
			}
			Eventually(ctx, func() uint64 { return r.state(ctx, "a").Drops.Expired }).Should(refused)
			state := r.state(ctx, "a")
			Expect(state.SPIs.Out).To(Equal(spi))
			if r.kernel {
				if limit.trigger != ipsec.ByPackets { // which alone it counts
					Expect(state.Out.Packets).To(And(BeNumerically(">", last/4), BeNumerically("<=", last)))
					last = state.Out.Packets
				}
			}
			Expect(state.Out).To(r.counts(ipsec.Counters{
				Packets: last, Bytes: last * plaintextOf(limit.size), Blocks: last * blocksOf(limit.size), Seq: last,
			}))

			// Each sequence number leaves once, and none beyond the last. What the other end answers, that nobody is there, the
			// gateway may be told in place of sending.
			unsent := state.Drops.Send
			_, packets := recording.ESP(ctx, r.tunnel.Plan.OuterA, testlab.SealedSize(limit.size), int(last-unsent))
			previous := uint32(0)
			for _, esp := range packets {
				Expect(binary.BigEndian.Uint32(esp)).To(Equal(spi))
				seq := binary.BigEndian.Uint32(esp[4:])
				Expect(seq).To(And(BeNumerically(">", previous), BeNumerically("<=", last)), "sequence number on the fibre")
				previous = seq
			}
		}, NodeTimeout(timeout), Label(testlab.Provokes))
	}

	It("drops the keys at the hard limit of time, twelve and a half minutes, and refuses what comes then", func(ctx SpecContext) {
		r := up(ctx, e, describe(topology.Limits{}), manual)
		Expect(r.Node("b").Agent().RemoveTunnel(ctx, tunnelName)).To(Succeed())
		const hard = tenMinutes * 5 / 4
		Expect(r.Advance(ctx, tenMinutes)).To(Succeed())
		r.events.Until(ctx, "the rekey has failed", func(all []agent.Event) bool {
			return len(testlab.Only(all, ipsec.Failed)) > 0
		})
		Expect(r.Advance(ctx, hard-tenMinutes-time.Millisecond)).To(Succeed())
		r.packets("a", 3, 100).Run(ctx, r.Lab)
		Eventually(ctx, func() agent.TunnelState { return r.state(ctx, "a") }).Should(And(
			HaveField("Out.Packets", uint64(3)), HaveField("Drops.NoSA", uint64(0)),
		), "a millisecond before, the old keys are good")

		recording := testlab.Record(r.Lab, "a-b")
		Expect(r.Advance(ctx, time.Millisecond)).To(Succeed())
		all := r.events.Until(ctx, "expired", func(all []agent.Event) bool { return len(testlab.Only(all, ipsec.Expired)) > 0 })
		Expect(testlab.Only(all, ipsec.Expired)[0]).To(And(HaveField("Node", "a"), HaveField("Trigger", ipsec.ByTime)))
		Expect(r.state(ctx, "a").SPIs).To(Equal(ipsec.SPIPair{}))
		Expect(r.packets("a", 50, 100).Run(ctx, r.Lab).Received).To(BeZero())
		refused := Equal(uint64(50))
		if r.kernel { // which counts packets that were sent together as one
			refused = And(BeNumerically(">", 0), BeNumerically("<=", 50))
		}
		Eventually(ctx, func() uint64 { return r.state(ctx, "a").Drops.NoSA }).Should(refused)
		for _, p := range recording.Stop() {
			_, _, isESP := testlab.ESP(p)
			Expect(isESP).To(BeFalse(), "%v", p)
		}
	}, NodeTimeout(timeout), Label(testlab.Provokes))
}
