package rekey

import (
	"context"
	"fmt"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"pqlab/agent"
	"pqlab/ipsec"
	"pqlab/lab"
	"pqlab/suites/testlab"
	"pqlab/topology"
	"pqlab/traffic"
)

func byVolume(e testlab.Env) {
	It("installs the default of 2^30 blocks, in a counter that costs each packet its blocks, rounded up", func(ctx SpecContext) {
		r := up(ctx, e, describe(topology.Limits{}), func(o *lab.Options) { o.Reveal = true })
		for _, node := range []string{"a", "b"} {
			secrets, err := r.tunnel.Secrets(ctx, node)
			Expect(err).NotTo(HaveOccurred())
			// The sender begins at the limit, the receiver an eighth later if the sender did not.
			Expect(secrets.Out.Soft).To(Equal(ipsec.Limits{Blocks: 1 << 30}))
			Expect(secrets.In.Soft).To(Equal(ipsec.Limits{Blocks: 1<<30 + 1<<27}))
			Expect(secrets.Out.Hard).To(Equal(ipsec.Limits{Blocks: 1 << 32}))
			Expect(secrets.In.Hard).To(Equal(ipsec.Limits{Blocks: 1 << 32}))
		}

		var packets, bytes, blocks uint64
		for _, size := range []int{60, 61, 62, 63, 77, 78, 79, 576, 1400, 1499, 8000, 8900} {
			const n = 3
			r.deliver(ctx, "a", n, size)
			packets, bytes, blocks = packets+n, bytes+n*plaintextOf(size), blocks+n*blocksOf(size)
			out, in := r.state(ctx, "a").Out, r.state(ctx, "b").In
			want := ipsec.Counters{Blocks: blocks, Bytes: bytes, Packets: packets, Seq: packets}
			Expect(out).To(r.counts(want), "sent, after size %d", size)
			Eventually(ctx, func() ipsec.Counters { return r.state(ctx, "b").In }).Should(r.counts(want), "received, after size %d", size)
			// The counter is never behind what is rounded over all packets together, so the limit never comes late.
			Expect(in.Blocks * 16).To(BeNumerically(">=", in.Bytes))
		}
		Expect(blocks*16).To(BeNumerically(">", bytes), "sizes were chosen that have to be rounded up")
	}, NodeTimeout(timeout))

	for _, trigger := range []struct {
		name   ipsec.Trigger
		limits topology.Limits
		limit  uint64
		cost   func(size int) uint64
	}{
		{ipsec.ByBlocks, topology.Limits{Blocks: 1000}, 1000, blocksOf},
		{ipsec.ByBytes, topology.Limits{Bytes: 16000}, 16000, plaintextOf},
		{ipsec.ByPackets, topology.Limits{Packets: 100}, 100, func(int) uint64 { return 1 }},
	} {
		It(fmt.Sprintf("rekeys at the packet that reaches the limit of %s, from either end", trigger.name), func(ctx SpecContext) {
			r := up(ctx, e, describe(trigger.limits), nil)
			if r.kernel && trigger.name != ipsec.ByPackets {
				r.notLater(ctx, trigger.name, func(size int) uint64 { return (trigger.limit + trigger.cost(size) - 1) / trigger.cost(size) })
				return
			}
			rekeys := 0
			// 102 bytes are 104 for the cipher, 7 blocks and not 6.5: 1000 blocks are 143 packets and not 154.
			for i, size := range []int{102, 102, 60, 63, 1400, 8900} {
				from := []string{"a", "b"}[i%2]
				last := (trigger.limit + trigger.cost(size) - 1) / trigger.cost(size)
				before := r.state(ctx, from).SPIs
				r.deliver(ctx, from, last-1, size)
				Expect(r.state(ctx, from)).To(And(HaveField("SPIs", before), HaveField("Out.Packets", last-1)))
				r.deliver(ctx, from, 1, size)
				rekeys++
				initiator, _ := r.rekeyed(ctx, rekeys)
				Expect(initiator.Node).To(Equal(from))
				Expect(initiator.Trigger).To(Equal(trigger.name))
				Expect(initiator.Old).To(Equal(before))
				Expect(initiator.Triggered.Out).To(r.counts(ipsec.Counters{
					Blocks: last * blocksOf(size), Bytes: last * plaintextOf(size), Packets: last, Seq: last,
				}), "sent on the SA when the rekey began")
			}
		}, NodeTimeout(timeout))
	}

	It("is never early under load, however packets are batched", func(ctx SpecContext) {
		if e.Kernel() {
			Skip("the kernel counts no blocks: their limit is translated to one that comes early, and never late")
		}
		const limit = 40_000
		// Between the limit and the hard one, four times as much, are three seconds at this rate: a busy machine needs some.
		const rate = 5e6
		r := up(ctx, e, describe(topology.Limits{Blocks: limit}), nil)
		for _, from := range []string{"a", "b"} { // 1500 packets of 88 blocks
			testlab.Start(ctx, r.Lab, r.flow(from, agent.Source{Proto: traffic.UDP, Packets: 1500, FrameSize: 1400, Rate: rate})).Whole(ctx)
		}
		all := r.events.Until(ctx, "several rekeys", func(all []agent.Event) bool {
			return len(testlab.Only(all, ipsec.Rekeyed)) >= 8
		})
		testlab.Calm(all) // none so late that the hard limit was reached
		for _, event := range testlab.Only(all, ipsec.Rekeyed) {
			if !event.Initiator {
				continue
			}
			Expect(event.Trigger).To(Equal(ipsec.ByBlocks))
			// The sender begins at the limit. Where a busy machine holds it up, the receiver does an eighth later.
			Expect(event.Triggered).To(Or(
				HaveField("Out.Blocks", BeNumerically(">=", limit)),
				HaveField("In.Blocks", BeNumerically(">=", limit+limit/8)),
			))
		}
	}, NodeTimeout(2*timeout))
}

// notLater checks for a limit that the kernel keeps by bounds that a rekey begins at the packet that reaches it at the
// latest. last is the number of that, by the size of packets.
func (r *rig) notLater(ctx context.Context, trigger ipsec.Trigger, last func(size int) uint64) {
	GinkgoHelper()
	for i, size := range []int{102, 60, 1400, 8900} {
		from := []string{"a", "b"}[i%2]
		before := r.state(ctx, from).SPIs
		for sent := uint64(0); sent < last(size); { // in steps, as it comes early, and the next one should not come too
			step := min(max(1, last(size)/16), last(size)-sent)
			r.deliver(ctx, from, step, size)
			if sent += step; r.state(ctx, from).SPIs != before {
				break
			}
		}
		var found agent.Event
		all := r.events.Until(ctx, "rekeyed", func(all []agent.Event) bool {
			for _, event := range testlab.Only(all, ipsec.Rekeyed) {
				// Where one packet is worth most of the limit the receiver is told at the same packet, and either may begin.
				if event.Initiator && (event.Old == before || event.Old == ipsec.SPIPair{In: before.Out, Out: before.In}) {
					found = event
				}
			}
			return found.Node != ""
		})
		testlab.Calm(all)
		Expect(found.Trigger).To(Equal(trigger))
		carried := found.Triggered.Out
		if found.Node != from {
			carried = found.Triggered.In
		}
		Expect(carried.Packets).To(And(BeNumerically(">", 0), BeNumerically("<=", last(size))), "sent on the SA when the rekey began")
	}
}
