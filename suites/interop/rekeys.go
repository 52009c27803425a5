package interop

import (
	"context"
	"math/rand/v2"
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
		var results []traffic.Result
		for rounds := 0; rounds < len(by); { // a slow machine takes more flows for them
			flows := r.start(ctx, map[bool]agent.Source{
				v6:  {Proto: traffic.UDP, Rate: 5e5, FrameSize: 300, Duration: long},
				!v6: {Proto: traffic.TCP, Rate: 1e6, Duration: long},
			})
			for ; !flows.done(); rounds++ {
				r.demand(ctx, by[rounds%len(by)]...)
			}
			results = append(results, flows.results(ctx)...)
		}
		r.refusedNothing(ctx)
		r.balanced(r.settled(ctx))
		for _, got := range results {
			Expect(got.Bytes).NotTo(BeZero())
			Expect(got.Lost).To(BeZero(), "%s from %s: of %d, %d of them at the socket: %+v", got.Proto, got.From, got.Sent, got.SocketDrops, got.Losses)
			Expect(got.Duplicated).To(BeZero())
		}
	}, NodeTimeout(2*timeout))
}

// hosts is a tunnel that ends where the traffic does.
func hosts(e testlab.Env) {
	for i, o := range outers() {
		if i%2 == 1 {
			continue // what the outer packets are like makes no difference to local ones
		}
		It("carry TCP and UDP between hosts that are the tunnel's ends themselves: "+o.String(), func(ctx SpecContext) {
			r := up(ctx, e, topology.New("interop").Host("a").Host("b").Fibre("a", "b", topology.Name(fibreLink)).
				Tunnel(tunnelName, "a", "b", topology.Suite("mldsa44+mlkem512"), topology.Encapsulation(o.encapsulation), topology.Family(o.family)))
			for _, v6 := range []bool{false, true} {
				for _, w := range r.ways(ctx, v6) {
					w.pass(mark())
					w.pass(random(9000))
					for _, s := range []agent.Source{
						{Proto: traffic.TCP, Bytes: 300_000}, // in super-packets
						{Proto: traffic.UDP, Packets: 30, Rate: 20e6},
					} {
						got, err := r.flow(ctx, w.sealer, v6, s)
						Expect(err).NotTo(HaveOccurred())
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

// calm fails where an exchange failed that an end began, or a hard limit was reached. What only the other end tells of as
// failed is an exchange that gave way to its own.
func (r *rig) calm(all []agent.Event) {
	GinkgoHelper()
	for _, event := range only(all, ipsec.Failed) {
		Expect(event.Initiator).To(BeFalse(), "%+v", event)
	}
	Expect(only(all, ipsec.Expired)).To(BeEmpty())
}

// settled waits until every inbound SA that was replaced is gone at both ends.
func (r *rig) settled(ctx context.Context) []agent.Event {
	GinkgoHelper()
	Expect(r.Advance(ctx, ipsec.DefaultGrace)).To(Succeed())
	all := r.events.Until(ctx, "every replaced SA is retired", func(all []agent.Event) bool {
		return len(only(all, ipsec.Retired)) >= len(only(all, ipsec.Rekeyed))
	})
	r.calm(all)
	return all
}

// balanced holds what was sent on each SA that was replaced against what its other end had taken when it was retired:
// nothing was lost, whatever TCP has sent again. Some SA has passed 2^32.
func (r *rig) balanced(all []agent.Event) {
	GinkgoHelper()
	type sa struct {
		to  string
		spi uint32
	}
	sent, got := map[sa]uint64{}, map[sa]uint64{}
	other := map[string]string{r.gateway: r.kernel, r.kernel: r.gateway}
	passed := map[string]int{}
	packets := uint64(0)
	for _, event := range only(all, ipsec.Rekeyed) {
		out := event.Replaced.Out
		Expect(out.Seq).To(Equal(uint64(start)+out.Packets), "%+v", event)
		sent[sa{other[event.Node], event.Old.Out}] = out.Packets
		packets += out.Packets
		if out.Packets > before {
			passed[event.Node]++
		}
	}
	for _, event := range only(all, ipsec.Retired) {
		got[sa{event.Node, event.Old.In}] = event.Replaced.In.Packets
	}
	Expect(got).To(Equal(sent), "packets taken and sent on each SA")
	Expect(passed).To(And(HaveKey(r.gateway), HaveKey(r.kernel)), "SAs that passed 2^32")
	GinkgoWriter.Printf("%d packets on %d SAs that were replaced, none lost; passed 2^32: %v\n", packets, len(sent), passed)
}

// flow sends from the host of one end to that of the other.
func (r *rig) flow(ctx context.Context, from string, v6 bool, s agent.Source) (traffic.Result, error) {
	finish, err := r.source(ctx, from, v6, s)
	if err != nil {
		return traffic.Result{}, err
	}
	return finish()
}

// source returns when all is sent. finish gives what arrived of it.
func (r *rig) source(ctx context.Context, from string, v6 bool, s agent.Source) (finish func() (traffic.Result, error), err error) {
	to := r.gateway
	if from == to {
		to = r.kernel
	}
	s.Flow, s.From, s.Streams = rand.Uint64(), r.protected(from, v6), 1
	sink := r.Node(r.host(to)).Agent()
	at, err := sink.OpenSink(ctx, agent.Sink{Proto: s.Proto, Listen: netip.AddrPortFrom(r.protected(to, v6), 0), Flow: s.Flow, Streams: 1})
	if err != nil {
		return nil, err
	}
	s.To = at.Addr
	sent, err := r.Node(r.host(from)).Agent().Send(ctx, s)
	return func() (traffic.Result, error) {
		got, err := sink.FinishSink(ctx, agent.Finish{ID: at.ID, Sent: sent})
		got.From = from
		return got, err
	}, err
}

// flows run beside the spec.
type flows struct {
	sent     chan struct{} // closed when all of them are
	mu       sync.Mutex
	finishes []func() (traffic.Result, error)
	errs     []error
}

// start sends from both ends.
func (r *rig) start(ctx context.Context, sources map[bool]agent.Source) *flows {
	f := &flows{sent: make(chan struct{})}
	var running sync.WaitGroup
	for v6, source := range sources {
		for _, from := range []string{r.gateway, r.kernel} {
			running.Go(func() {
				finish, err := r.source(ctx, from, v6, source)
				f.mu.Lock()
				defer f.mu.Unlock()
				f.finishes, f.errs = append(f.finishes, finish), append(f.errs, err)
			})
		}
	}
	go func() {
		running.Wait()
		close(f.sent)
	}()
	return f
}

func (f *flows) done() bool {
	select {
	case <-f.sent:
		return true
	default:
		return false
	}
}

// results are what arrived. A sink waits a quarter of a second for what is late, so nothing else should go on.
func (f *flows) results(ctx context.Context) (all []traffic.Result) {
	GinkgoHelper()
	Eventually(ctx, f.sent).Should(BeClosed())
	Expect(f.errs).To(HaveEach(BeNil()))
	for _, finish := range f.finishes {
		got, err := finish()
		Expect(err).NotTo(HaveOccurred())
		all = append(all, got)
	}
	return all
}
