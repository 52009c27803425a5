package handshake

import (
	"net/netip"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"pqlab/agent"
	"pqlab/capture"
	"pqlab/ipsec"
	"pqlab/ipsec/keying"
	"pqlab/lab"
	"pqlab/pqc/exchange"
	"pqlab/suites/testlab"
	"pqlab/topology"
)

func stranger(e testlab.Env) {
	It("keeps a lab's tunnel shut to a stranger while another tunnel of the node goes on, and opens it to the peer", func(ctx SpecContext) {
		l := e.Up(ctx, topology.New("stranger").Host("a").Host("b").Host("c").
			Fibre("a", "b").Fibre("a", "c").
			Tunnel("ab", "a", "b").Tunnel("ac", "a", "c").
			UDP("a", "b", 10*topology.Mbit).UDP("a", "c", 10*topology.Mbit), nil)
		shut, open := l.Tunnel("ab"), l.Tunnel("ac")
		_, err := open.Establish(ctx)
		Expect(err).NotTo(HaveOccurred())

		var pin exchange.Pin
		hello, err := l.Node("a").Agent().Hello(ctx)
		Expect(err).NotTo(HaveOccurred())
		for i := range pin {
			pin[i] = hello.Pin[i] ^ 1
		}
		trust(ctx, l, shut.Plan, pin)
		link := l.Plan.Links[0]
		watch, err := capture.Watch(l.Node("a").Namespace(), link.A.Interface, capture.Wanted{
			Pairs:    []capture.Pair{{A: shut.Plan.A.Subnets[0], B: shut.Plan.B.Subnets[0]}},
			Exchange: []netip.AddrPort{netip.AddrPortFrom(shut.Plan.OuterA, keying.Port), netip.AddrPortFrom(shut.Plan.OuterB, keying.Port)},
		})
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(watch.Stop)

		_, err = shut.Establish(ctx)
		var refused *agent.Error
		Expect(err).To(BeAssignableToTypeOf(refused))
		refusedFlow, err := l.Send(ctx, l.Plan.Traffic[0], 200*time.Millisecond)
		Expect(err).NotTo(HaveOccurred())
		Expect(refusedFlow.Received).To(BeZero())
		for _, node := range []string{"a", "b"} {
			state, err := shut.State(ctx, node)
			Expect(err).NotTo(HaveOccurred())
			Expect(state.SPIs).To(Equal(ipsec.SPIPair{}))
		}
		state, err := shut.State(ctx, "a")
		Expect(err).NotTo(HaveOccurred())
		Expect(state.Drops.NoSA).To(BeNumerically(">", 0))
		counts, err := watch.Counts()
		Expect(err).NotTo(HaveOccurred())
		Expect(counts.Exchange).To(BeNumerically(">", 0))
		Expect(counts.Plaintext + counts.ESP + counts.ESPinUDP).To(BeZero())
		_, err = open.Rekey(ctx, "a")
		Expect(err).NotTo(HaveOccurred())
		other, err := l.Send(ctx, l.Plan.Traffic[1], 200*time.Millisecond)
		Expect(err).NotTo(HaveOccurred())
		Expect(other.Received).To(Equal(other.Sent))

		trust(ctx, l, shut.Plan, hello.Pin)
		_, err = shut.Establish(ctx)
		Expect(err).NotTo(HaveOccurred())
		flow, err := l.Send(ctx, l.Plan.Traffic[0], 200*time.Millisecond)
		Expect(err).NotTo(HaveOccurred())
		Expect(flow.Sent).To(BeNumerically(">", 0))
		Expect(flow.Received).To(Equal(flow.Sent))
	}, SpecTimeout(specTime), Label(testlab.Provokes)) // packets without an SA
}

// trust makes the B end of a tunnel anew, with another idea of whom the pin of its peer is.
func trust(ctx SpecContext, l *lab.Lab, p topology.PlannedTunnel, pin exchange.Pin) {
	GinkgoHelper()
	b := l.Node(p.B.Node).Agent()
	Expect(b.RemoveTunnel(ctx, p.Name)).To(Succeed())
	_, err := b.AddTunnel(ctx, agent.Tunnel{
		Policy: ipsec.Policy{
			Tunnel: p.Name, Local: p.B.Subnets, Remote: p.A.Subnets, Src: p.OuterB, Dst: p.OuterA, PathMTU: p.MTU,
		},
		Suite: p.Suite, Combiner: p.Combiner, Deadline: p.Deadline,
	})
	Expect(err).NotTo(HaveOccurred())
	Expect(b.Trust(ctx, agent.Trust{Tunnel: p.Name, Pin: pin})).To(Succeed())
}
