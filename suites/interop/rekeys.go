package interop

import (
	"context"
	"net/netip"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"pqlab/agent"
	"pqlab/ipsec"
	"pqlab/suites/testlab"
	"pqlab/topology"
	"pqlab/traffic"
)

func rekeys(rig func() *rig, v6 bool) {
	It("lose nothing while either of them, and both at once, replace the keys, and every SA passes 2^32", func(ctx SpecContext) {
		r := rig()
		const long = 1500 * time.Millisecond
		by := [][]string{{r.gateway}, {r.kernel}, {r.gateway, r.kernel}}
		var sources []testlab.Flow
		for family, source := range map[bool]agent.Source{
			v6:  {Proto: traffic.UDP, Rate: 5e5, FrameSize: 300, Duration: long},
			!v6: {Proto: traffic.TCP, Rate: 1e6, Duration: long},
		} {
			sources = append(sources, r.between(source, family)...)
		}
		for rounds := 0; rounds < len(by); { // a slow machine takes more flows for them
			flows := testlab.Start(ctx, r.Lab, sources...)
			for ; !flows.Sent(); rounds++ {
				r.demand(ctx, by[rounds%len(by)]...)
			}
			flows.Whole(ctx)
		}
		r.refusedNothing(ctx)
		r.balanced(r.settled(ctx))
	}, NodeTimeout(2*timeout))
}

// hosts is a tunnel that ends where the traffic does.
func hosts(e testlab.Env) {
	for i, o := range testlab.Carriages() {
		if i%2 == 1 {
			continue // what the outer packets are like makes no difference to local ones
		}
		It("carry TCP and UDP between hosts that are the tunnel's ends themselves: "+o.String(), func(ctx SpecContext) {
			r := up(ctx, e, topology.New("interop").Host("a").Host("b").Fibre("a", "b", topology.Name(fibreLink)).
				Tunnel(tunnelName, "a", "b", topology.Suite("mldsa44+mlkem512"), topology.Encapsulation(o.Encapsulation), topology.Family(o.Family)))
			for _, v6 := range []bool{false, true} {
				for i, w := range r.ways(ctx, v6) {
					w.pass(testlab.Mark())
					w.pass(testlab.Random(9000))
					for _, s := range []agent.Source{
						{Proto: traffic.TCP, Bytes: 300_000}, // in super-packets
						{Proto: traffic.UDP, Packets: 30, Rate: 20e6},
					} {
						flow := r.between(s, v6)[i]
						flow.Quiet = testlab.Unhurried
						got := flow.Run(ctx, r.Lab)
						Expect(got).To(And(HaveField("Lost", uint64(0)), HaveField("Duplicated", uint64(0))))
						Expect(got.Bytes).To(BeNumerically(">=", s.Bytes))
						GinkgoWriter.Printf("%v, %s, %s: %.0f kbit/s, %d sent again\n", w, version(v6), s.Proto, got.BitsPerSecond/1e3, got.Retransmitted)
					}
				}
			}
			r.refusedNothing(ctx)
		}, NodeTimeout(timeout))
	}
}

// demand has each of the ends given begin a rekey, at once, and returns when they have one.
func (r *rig) demand(ctx context.Context, ends ...string) {
	GinkgoHelper()
	var all sync.WaitGroup
	errs := make([]error, len(ends))
	for i, end := range ends {
		all.Go(func() { _, errs[i] = r.tunnel.Rekey(ctx, end) })
	}
	all.Wait()
	Expect(errs).To(HaveEach(BeNil()))
}

// settled waits until every inbound SA that was replaced is gone at both ends.
func (r *rig) settled(ctx context.Context) []agent.Event {
	GinkgoHelper()
	Expect(r.Advance(ctx, ipsec.DefaultGrace)).To(Succeed())
	all := r.events.Settled(ctx)
	testlab.Calm(all)
	return all
}

// balanced checks that nothing was lost, whatever TCP has sent again, and that SAs of both ends have passed 2^32.
func (r *rig) balanced(all []agent.Event) {
	GinkgoHelper()
	testlab.Balanced(all, [2]string{r.gateway, r.kernel})
	passed := map[string]int{}
	for _, event := range testlab.Only(all, ipsec.Rekeyed) {
		out := event.Replaced.Out
		Expect(out.Seq).To(Equal(uint64(start)+out.Packets), "%+v", event)
		if out.Packets > before {
			passed[event.Node]++
		}
	}
	Expect(passed).To(And(HaveKey(r.gateway), HaveKey(r.kernel)), "SAs that passed 2^32")
	GinkgoWriter.Printf("passed 2^32: %v\n", passed)
}

// between are flows between the hosts, from that of the gateway's end first.
func (r *rig) between(s agent.Source, v6 bool) []testlab.Flow {
	GinkgoHelper()
	return testlab.Both(s, [2]string{r.host(r.gateway), r.host(r.kernel)}, [2]netip.Addr{r.protected(r.gateway, v6), r.protected(r.kernel, v6)})
}
