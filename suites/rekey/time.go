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

// tenMinutes is the claim; the defaults are compared with it and not it with them.
const tenMinutes = 10 * time.Minute

func byTime(e testlab.Env) {
	It("has ten minutes and 2^30 blocks by default in every built-in lab", func(ctx SpecContext) {
		for _, info := range topology.Builtins() {
			t, err := topology.Builtin(info.Name)
			Expect(err).NotTo(HaveOccurred())
			plan, err := t.Plan()
			Expect(err).NotTo(HaveOccurred())
			Expect(plan.Tunnels).NotTo(BeEmpty())
			for _, tunnel := range plan.Tunnels {
				Expect(tunnel.Rekey).To(Equal(topology.Limits{Time: tenMinutes, Blocks: 1 << 30}), info.Name)
			}
		}
		Expect([]any{ipsec.DefaultTime, ipsec.DefaultBlocks}).To(Equal([]any{tenMinutes, 1 << 30}))
	}, NodeTimeout(timeout))

	for name, limit := range map[string]time.Duration{"the default, ten minutes": 0, "90 s": 90 * time.Second} {
		It("rekeys after the time and not before: "+name, func(ctx SpecContext) {
			r := up(ctx, e, describe(topology.Limits{Time: limit}), manual)
			if limit == 0 {
				limit = tenMinutes
			}
			// Whoever began the last exchange begins the next by time. What passed until the moment of the trigger is
			// counted, so packets sent a millisecond before the limit tell whether the trigger came earlier.
			for i, begins := range []string{"a", "a", "b", "b"} {
				if i == 2 {
					_, err := r.tunnel.Rekey(ctx, "b")
					Expect(err).NotTo(HaveOccurred())
					initiator, _ := r.rekeyed(ctx, 3)
					Expect(initiator.Trigger).To(Equal(ipsec.OnDemand))
				}
				before := r.state(ctx, begins).SPIs
				Expect(r.Advance(ctx, limit-time.Millisecond)).To(Succeed())
				r.deliver(ctx, begins, 7, 200)
				Expect(r.state(ctx, begins).SPIs).To(Equal(before))
				Expect(r.Advance(ctx, time.Millisecond)).To(Succeed())

				n := i + 1
				if i >= 2 {
					n++
				}
				initiator, responder := r.rekeyed(ctx, n)
				Expect(initiator.Node).To(Equal(begins))
				Expect(initiator.Trigger).To(Equal(ipsec.ByTime))
				Expect(initiator.Old).To(Equal(before))
				Expect(initiator.Triggered.Out.Packets).To(Equal(uint64(7)), "sent before the trigger")
				Expect(responder.Triggered.In.Packets).To(Equal(uint64(7)))
			}
		}, NodeTimeout(timeout))
	}

	It("rekeys from the other end an eighth later where the clock of the one whose turn it is stands still", func(ctx SpecContext) {
		r := up(ctx, e, describe(topology.Limits{}), manual)
		clock := r.Node("b").Agent()
		const late = tenMinutes + tenMinutes/8
		Expect(clock.Advance(ctx, late-time.Millisecond)).To(Succeed())
		r.deliver(ctx, "b", 5, 100)
		Expect(clock.Advance(ctx, time.Millisecond)).To(Succeed())
		initiator, _ := r.rekeyed(ctx, 1)
		Expect(initiator.Node).To(Equal("b"))
		Expect(initiator.Trigger).To(Equal(ipsec.ByTime))
		Expect(initiator.Triggered.Out.Packets).To(Equal(uint64(5)))
	}, NodeTimeout(timeout))

	It("rekeys by the machine's clock too", func(ctx SpecContext) {
		limit := testlab.Patience(time.Second)
		began := time.Now()
		r := up(ctx, e, describe(topology.Limits{Time: limit}), nil)
		var first agent.Event
		r.events.Until(ctx, "a rekey began", func(all []agent.Event) bool {
			for _, event := range testlab.Only(all, ipsec.Rekeyed) {
				if event.Initiator {
					first = event
				}
			}
			return first.Node != ""
		})
		// It is a that begins, or b an eighth later where a busy machine has held a up.
		Expect(first.Trigger).To(Equal(ipsec.ByTime))
		Expect(time.Since(began)).To(BeNumerically(">=", limit))
		testlab.Calm(r.events.All())
	}, NodeTimeout(timeout))
}
