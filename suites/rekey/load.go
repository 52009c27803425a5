package rekey

import (
	"context"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"pqlab/agent"
	"pqlab/internal/vm/guest"
	"pqlab/ipsec"
	"pqlab/suites/testlab"
	"pqlab/topology"
	"pqlab/traffic"
)

func underLoad(e testlab.Env) {
	It("loses no packet of UDP and TCP in both directions while both ends demand rekeys at once", func(ctx SpecContext) {
		r := up(ctx, e, describe(topology.Limits{}), nil)
		long := 4 * time.Second
		if guest.Emulated() {
			long = 10 * time.Second
		}
		udp := agent.Source{Proto: traffic.UDP, Rate: 10e6, FrameSize: 600, Duration: long}
		tcp := agent.Source{Proto: traffic.TCP, Rate: 20e6, Duration: long}
		least := 40
		if r.kernel { // in a guest without KVM an exchange takes ten times as long
			least = 4
		}
		for rounds := 0; rounds < least; { // a slow machine takes more flows for them
			flows := testlab.Start(ctx, r.Lab, append(r.both(udp), r.both(tcp)...)...)
			for ; !flows.Sent(); rounds++ {
				r.demandBoth(ctx)
			}
			flows.Whole(ctx)
		}
		r.matched(ctx)
		all := r.events.Settled(ctx)
		testlab.Calm(all)
		testlab.Balanced(all, [2]string{"a", "b"})
		r.refusedNothing(ctx)
	}, NodeTimeout(4*time.Minute))

	It("rekeys a thousand times under UDP load, loses nothing and grows nothing", func(ctx SpecContext) {
		rekeys, warmup := 1000, 150
		if e.Kernel() {
			rekeys, warmup = 100, 30
		}
		if guest.Emulated() {
			rekeys, warmup = 50, 10
		}
		r := up(ctx, e, describe(topology.Limits{}), nil)
		r.rekeyUnderLoad(ctx, warmup)
		r.events.Settled(ctx)
		before := r.usage(ctx)

		began := time.Now()
		r.rekeyUnderLoad(ctx, rekeys)
		GinkgoWriter.Printf("%d rekeys under load in %v\n", rekeys, time.Since(began).Round(time.Millisecond))
		all := r.events.Settled(ctx)
		testlab.Calm(all)
		Expect(len(testlab.Only(all, ipsec.Rekeyed))).To(Equal(2 * (rekeys + warmup)))
		testlab.Balanced(all, [2]string{"a", "b"})
		r.matched(ctx)
		r.refusedNothing(ctx)

		for node, old := range before {
			var now agent.Usage
			// Go may have begun a thread more for want of an idle one, and keeps it, as maps keep the room for the most
			// SAs that were in their grace at once. An inbound SA takes more than a KiB, and a thousand rekeys make a thousand.
			const idle, heap = 8, 1 << 19
			Eventually(ctx, func() agent.Usage {
				now = r.usage(ctx)[node]
				return now
			}).WithTimeout(testlab.Patience(time.Minute)).Should(And(
				HaveField("Goroutines", BeNumerically("<=", old.Goroutines)),
				HaveField("Descriptors", BeNumerically("<=", old.Descriptors)),
				HaveField("Threads", BeNumerically("<=", old.Threads+idle)),
				HaveField("Heap", BeNumerically("<=", old.Heap+heap)),
			), "what node %s holds", node)
			GinkgoWriter.Printf("node %s: %+v, was %+v\n", node, now, old)
		}
	}, NodeTimeout(4*time.Minute))
}

// rekeyUnderLoad rekeys n times, from each end in turn, under UDP in both directions.
func (r *rig) rekeyUnderLoad(ctx context.Context, n int) {
	GinkgoHelper()
	for done := 0; done < n; {
		flows := testlab.Start(ctx, r.Lab, r.both(agent.Source{Proto: traffic.UDP, Rate: 5e6, FrameSize: 500, Duration: time.Second})...)
		for ; done < n && !flows.Sent(); done++ {
			from := []string{"a", "b"}[done%2]
			report, err := r.tunnel.Rekey(ctx, from)
			Expect(err).NotTo(HaveOccurred())
			// The other end has switched too, before the one that began is told that it is over.
			Expect(r.state(ctx, other(from)).SPIs).To(Equal(ipsec.SPIPair{In: report.Out, Out: report.In}))
		}
		flows.Whole(ctx)
	}
}

func (r *rig) usage(ctx context.Context) map[string]agent.Usage {
	GinkgoHelper()
	all := map[string]agent.Usage{}
	for _, node := range []string{"a", "b"} {
		u, err := r.Node(node).Agent().Usage(ctx)
		Expect(err).NotTo(HaveOccurred())
		all[node] = u
	}
	return all
}

// refusedNothing checks that neither end has refused a packet.
func (r *rig) refusedNothing(ctx context.Context) {
	GinkgoHelper()
	for _, node := range []string{"a", "b"} {
		Expect(r.state(ctx, node).Drops).To(Equal(ipsec.Drops{}), node)
		rest, err := r.Node(node).Agent().TunnelState(ctx, "")
		Expect(err).NotTo(HaveOccurred())
		Expect(rest.Drops).To(Equal(ipsec.Drops{}), node)
	}
}
