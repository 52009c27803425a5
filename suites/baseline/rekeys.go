package baseline

import (
	"fmt"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"pqlab/agent"
	"pqlab/ipsec"
	"pqlab/suites/testlab"
	"pqlab/topology"
)

func rekeys(e testlab.Env) {
	for _, limit := range []struct {
		trigger ipsec.Trigger
		limits  topology.Limits
		used    func(ipsec.Counters) uint64
		at      uint64
	}{
		{ipsec.ByPackets, topology.Limits{Packets: 800}, func(c ipsec.Counters) uint64 { return c.Packets }, 800},
		{ipsec.ByBytes, topology.Limits{Bytes: 500_000}, func(c ipsec.Counters) uint64 { return c.Bytes }, 500_000},
		{ipsec.ByBlocks, topology.Limits{Blocks: 30_000}, func(c ipsec.Counters) uint64 { return c.Blocks }, 30_000},
		{ipsec.ByTime, topology.Limits{Time: time.Second * time.Duration(slowly())}, func(ipsec.Counters) uint64 { return 0 }, 1},
	} {
		It(fmt.Sprintf("replaces its keys under load by %s, never late, and loses nothing", limit.trigger), func(ctx SpecContext) {
			r := up(ctx, e, describe(topology.Rekey(limit.limits)), nil)
			r.establish(ctx)
			// Some 3000 packets, and 1300 back, of 1.9 MB each.
			var flows sync.WaitGroup
			for _, f := range r.Plan.Traffic[2:] {
				flows.Go(func() {
					defer GinkgoRecover()
					r.send(ctx, f, 3*time.Second*time.Duration(slowly()))
				})
			}
			flows.Wait()
			all := r.settled(ctx)
			Expect(testlab.Only(all, ipsec.Failed)).To(BeEmpty())
			Expect(testlab.Only(all, ipsec.Expired)).To(BeEmpty())
			for _, event := range testlab.Only(all, ipsec.Rekeyed) {
				if !event.Initiator {
					Expect(event.Trigger).To(Equal(ipsec.ByPeer))
					continue
				}
				Expect(event.Trigger).To(Equal(limit.trigger))
				Expect(event.Duration).To(BeNumerically(">", 0))
				// When it began, neither direction had passed the limit.
				Expect(limit.used(event.Triggered.Out)).To(BeNumerically("<=", limit.at))
				Expect(limit.used(event.Triggered.In)).To(BeNumerically("<=", limit.at))
				Expect(event.Exchange.Suite).To(Equal("ed25519+x25519"))
			}
			balanced(all)
			r.clean(ctx)
		}, NodeTimeout(timeout))
	}

	It("replaces its keys where both ends demand it at once", func(ctx SpecContext) {
		r := up(ctx, e, describe(), nil)
		r.establish(ctx)
		for range 4 {
			var both [2]error
			var done sync.WaitGroup
			for i, from := range gateways() {
				done.Go(func() { _, both[i] = r.tunnel.Rekey(ctx, from) })
			}
			done.Wait()
			Expect(both).To(HaveEach(BeNil()))
			for _, f := range r.Plan.Traffic[2:] {
				r.send(ctx, f, time.Second/4)
			}
			Eventually(ctx, func() ipsec.SPIPair { s := r.state(ctx, "d2").SPIs; return ipsec.SPIPair{In: s.Out, Out: s.In} }).
				Should(Equal(r.state(ctx, "d1").SPIs))
		}
		all := r.settled(ctx)
		Expect(testlab.Only(all, ipsec.Failed)).To(BeEmpty())
		balanced(all)
		r.clean(ctx)
	}, NodeTimeout(timeout))

	It("replaces its keys on demand of either end, with others at both", func(ctx SpecContext) {
		r := up(ctx, e, describe(), nil)
		r.establish(ctx)
		spis := map[uint32]bool{}
		for i, from := range []string{"d1", "d2", "d2", "d1"} {
			report, err := r.tunnel.Rekey(ctx, from)
			Expect(err).NotTo(HaveOccurred())
			Expect(report.Traffic.Sent).To(BeNumerically(">", 64), "two messages, with a key of X25519")
			Expect(r.state(ctx, from).SPIs).To(Equal(ipsec.SPIPair{In: report.In, Out: report.Out}))
			Expect(r.state(ctx, peerOf(from)).SPIs).To(Equal(ipsec.SPIPair{In: report.Out, Out: report.In}))
			Expect(spis).NotTo(HaveKey(report.In))
			spis[report.In] = true
			for _, f := range r.Plan.Traffic[2:] {
				r.send(ctx, f, time.Second/10)
			}
			all := r.events.Until(ctx, "rekeyed at both ends", func(all []agent.Event) bool { return len(testlab.Only(all, ipsec.Rekeyed)) == 2*(i+1) })
			for _, event := range testlab.Only(all, ipsec.Rekeyed)[2*i:] {
				Expect(event.Initiator).To(Equal(event.Node == from))
				Expect(event.Trigger).To(Equal(map[bool]ipsec.Trigger{true: ipsec.OnDemand, false: ipsec.ByPeer}[event.Initiator]))
			}
		}
		r.clean(ctx)
	}, NodeTimeout(timeout))
}

// settled waits until the SAs that had been replaced when it was called are gone, and have been counted at both ends, of
// two rekeys at least. Further ones may be under way where time replaces them.
func (r *rig) settled(ctx SpecContext) []agent.Event {
	GinkgoHelper()
	least := max(4, len(testlab.Only(r.events.All(), ipsec.Rekeyed)))
	return r.events.Until(ctx, "rekeyed, and the old SAs counted", func(all []agent.Event) bool {
		rekeys := testlab.Only(all, ipsec.Rekeyed)
		if len(rekeys) < least {
			return false
		}
		sent, got := testlab.Replaced(all, gateways())
		for _, event := range rekeys[:least] {
			for _, s := range []testlab.SA{{To: peerOf(event.Node), SPI: event.Old.Out}, {To: event.Node, SPI: event.Old.In}} {
				_, left := sent[s]
				_, arrived := got[s]
				if !left || !arrived {
					return false
				}
			}
		}
		return true
	})
}

func peerOf(node string) string { return map[string]string{"d1": "d2", "d2": "d1"}[node] }

// balanced holds what was sent on each SA that was replaced against what its other end had accepted. Unlike testlab.Balanced it
// allows for rekeys that are under way.
func balanced(all []agent.Event) {
	GinkgoHelper()
	sent, got := testlab.Replaced(all, gateways())
	var packets uint64
	for s, n := range got {
		if _, ok := sent[s]; ok { // else its sender's word is on its way
			Expect(n).To(Equal(sent[s]), "packets on the SA %#08x to %s", s.SPI, s.To)
			packets += n
		}
	}
	Expect(packets).To(BeNumerically(">", 100))
}
