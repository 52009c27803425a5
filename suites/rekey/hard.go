package rekey

import (
	"context"
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
			const sent = 1000
			got := r.send(ctx, "a", sent, limit.size)
			Expect(got.Received).To(BeZero(), "nothing gets into a tunnel that has no other end")

			all := r.events.Until(ctx, "expired", func(all []agent.Event) bool { return len(only(all, ipsec.Expired)) > 0 })
			Expect(only(all, ipsec.Expired)).To(ConsistOf(And(
				HaveField("Node", "a"), HaveField("Trigger", limit.trigger), HaveField("Old.Out", spi),
			)))
			r.events.Until(ctx, "a rekey was tried", func(all []agent.Event) bool {
				for _, e := range only(all, ipsec.Failed) {
					if e.Node == "a" && e.Initiator && e.Trigger == limit.trigger {
						return true
					}
				}
				return false
			})
			state := r.state(ctx, "a")
			Expect(state.SPIs.Out).To(Equal(spi))
			last := limit.last
			if r.kernel {
				if limit.trigger != ipsec.ByPackets { // which alone it counts
					Expect(state.Out.Packets).To(And(BeNumerically(">", last/4), BeNumerically("<=", last)))
					last = state.Out.Packets
				}
				Expect(state.Drops.Expired).NotTo(BeZero(), "it counts many packets that were sent together as one")
			} else {
				Expect(state.Drops.Expired).To(Equal(uint64(sent) - last))
			}
			Expect(state.Out).To(r.counts(ipsec.Counters{
				Packets: last, Bytes: last * plaintextOf(limit.size), Blocks: last * blocksOf(limit.size), Seq: last,
			}))

			var seqs []uint32
			_, packets := recording.ESP(ctx, r.tunnel.Plan.OuterA, sealed(limit.size), int(last))
			for _, esp := range packets {
				Expect(binary.BigEndian.Uint32(esp)).To(Equal(spi))
				seqs = append(seqs, binary.BigEndian.Uint32(esp[4:]))
			}
			var want []uint32
			for seq := range uint32(last) {
				want = append(want, seq+1)
			}
			Expect(seqs).To(Equal(want), "sequence numbers on the fibre")
		}, NodeTimeout(timeout), Label(testlab.Provokes))
	}

	It("drops the keys at the hard limit of time, twelve and a half minutes, and refuses what comes then", func(ctx SpecContext) {
		r := up(ctx, e, describe(topology.Limits{}), manual)
		Expect(r.Node("b").Agent().RemoveTunnel(ctx, tunnelName)).To(Succeed())
		const hard = tenMinutes * 5 / 4
		Expect(r.Advance(ctx, tenMinutes)).To(Succeed())
		r.events.Until(ctx, "the rekey has failed", func(all []agent.Event) bool {
			return len(only(all, ipsec.Failed)) > 0
		})
		Expect(r.Advance(ctx, hard-tenMinutes-time.Millisecond)).To(Succeed())
		r.send(ctx, "a", 3, 100)
		Expect(r.state(ctx, "a")).To(And(
			HaveField("Out.Packets", uint64(3)), HaveField("Drops.NoSA", uint64(0)),
		), "a millisecond before, the old keys are good")

		recording := testlab.Record(r.Lab, "a-b")
		Expect(r.Advance(ctx, time.Millisecond)).To(Succeed())
		all := r.events.Until(ctx, "expired", func(all []agent.Event) bool { return len(only(all, ipsec.Expired)) > 0 })
		Expect(only(all, ipsec.Expired)[0]).To(And(HaveField("Node", "a"), HaveField("Trigger", ipsec.ByTime)))
		Expect(r.state(ctx, "a").SPIs).To(Equal(ipsec.SPIPair{}))
		Expect(r.send(ctx, "a", 50, 100).Received).To(BeZero())
		if r.kernel { // which counts packets that were sent together as one
			Expect(r.state(ctx, "a").Drops.NoSA).To(And(BeNumerically(">", 0), BeNumerically("<=", 50)))
		} else {
			Expect(r.state(ctx, "a").Drops.NoSA).To(Equal(uint64(50)))
		}
		for _, p := range recording.Stop() {
			_, _, isESP := testlab.ESP(p)
			Expect(isESP).To(BeFalse(), "%v", p)
		}
	}, NodeTimeout(timeout), Label(testlab.Provokes))
}

// sealed is the length of the ESP packet around an inner packet of n bytes: header, IV and ICV (RFC 4106).
func sealed(n int) int { return 8 + 8 + int(plaintextOf(n)) + 16 }

// settled waits until every inbound SA that was replaced is gone at both ends.
func (r *rig) settled(ctx context.Context) []agent.Event {
	GinkgoHelper()
	return r.events.Until(ctx, "every replaced SA is retired", func(all []agent.Event) bool {
		return len(only(all, ipsec.Retired)) >= len(only(all, ipsec.Rekeyed))
	})
}
