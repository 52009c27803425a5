package rekey

import (
	"context"
	"sync"
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
			flows := r.start(ctx, udp, tcp)
			for ; !flows.done(); rounds++ {
				r.demandBoth(ctx)
			}
			for _, got := range flows.results(ctx) {
				Expect(got.Bytes).NotTo(BeZero())
				Expect(got.Lost).To(BeZero(), "%s from %s", got.Proto, got.From)
				Expect(got.Duplicated).To(BeZero())
			}
		}
		r.matched(ctx)
		all := r.settled(ctx)
		r.calm(all)
		r.balanced(all)
		r.refusedNothing(ctx)
	}, NodeTimeout(90*time.Second))

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
		r.settled(ctx)
		before := r.usage(ctx)

		began := time.Now()
		r.rekeyUnderLoad(ctx, rekeys)
		GinkgoWriter.Printf("%d rekeys under load in %v\n", rekeys, time.Since(began).Round(time.Millisecond))
		all := r.settled(ctx)
		r.calm(all)
		Expect(len(only(all, ipsec.Rekeyed))).To(Equal(2 * (rekeys + warmup)))
		r.balanced(all)
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
			}).WithTimeout(10*time.Second).Should(And(
				HaveField("Goroutines", BeNumerically("<=", old.Goroutines)),
				HaveField("Descriptors", BeNumerically("<=", old.Descriptors)),
				HaveField("Threads", BeNumerically("<=", old.Threads+idle)),
				HaveField("Heap", BeNumerically("<=", old.Heap+heap)),
			), "what node %s holds", node)
			GinkgoWriter.Printf("node %s: %+v, was %+v\n", node, now, old)
		}
	}, NodeTimeout(90*time.Second))
}

// rekeyUnderLoad rekeys n times, from each end in turn, under UDP in both directions.
func (r *rig) rekeyUnderLoad(ctx context.Context, n int) {
	GinkgoHelper()
	for done := 0; done < n; {
		flows := r.start(ctx, agent.Source{Proto: traffic.UDP, Rate: 5e6, FrameSize: 500, Duration: time.Second})
		for ; done < n && !flows.done(); done++ {
			from := []string{"a", "b"}[done%2]
			report, err := r.tunnel.Rekey(ctx, from)
			Expect(err).NotTo(HaveOccurred())
			// The other end has switched too, before the one that began is told that it is over.
			Expect(r.state(ctx, other(from)).SPIs).To(Equal(ipsec.SPIPair{In: report.Out, Out: report.In}))
		}
		for _, got := range flows.results(ctx) {
			Expect(got.Sent).NotTo(BeZero())
			Expect(got.Lost).To(BeZero())
			Expect(got.Duplicated).To(BeZero())
		}
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

// flows run beside the spec.
type flows struct {
	running sync.WaitGroup
	ended   chan struct{}
	mu      sync.Mutex
	got     []traffic.Result
	errs    []error
}

// start sends each source from both ends.
func (r *rig) start(ctx context.Context, sources ...agent.Source) *flows {
	f := &flows{ended: make(chan struct{})}
	for _, source := range sources {
		for _, from := range []string{"a", "b"} {
			f.running.Go(func() {
				got, err := r.flow(ctx, from, source)
				got.From = from
				f.mu.Lock()
				defer f.mu.Unlock()
				f.got, f.errs = append(f.got, got), append(f.errs, err)
			})
		}
	}
	go func() {
		f.running.Wait()
		close(f.ended)
	}()
	return f
}

func (f *flows) done() bool {
	select {
	case <-f.ended:
		return true
	default:
		return false
	}
}

func (f *flows) results(ctx context.Context) []traffic.Result {
	GinkgoHelper()
	Eventually(ctx, f.ended).Should(BeClosed())
	Expect(f.errs).To(HaveEach(BeNil()))
	return f.got
}

// balanced holds what was sent on each SA that was replaced against what its other end had accepted when it was
// retired: every packet that left arrived, under the SA that it left under.
func (r *rig) balanced(all []agent.Event) {
	GinkgoHelper()
	type sa struct {
		to  string
		spi uint32
	}
	sent, got := map[sa]uint64{}, map[sa]uint64{}
	for _, event := range only(all, ipsec.Rekeyed) {
		sent[sa{other(event.Node), event.Old.Out}] = event.Replaced.Out.Packets
	}
	for _, event := range only(all, ipsec.Retired) {
		got[sa{event.Node, event.Old.In}] = event.Replaced.In.Packets
	}
	Expect(sent).NotTo(BeEmpty())
	var packets uint64
	differ := map[sa][2]uint64{}
	for each, n := range sent {
		packets += n
		if got[each] != n {
			differ[each] = [2]uint64{n, got[each]}
		}
	}
	Expect(packets).NotTo(BeZero())
	Expect(differ).To(BeEmpty(), "packets sent and received on an SA, of %d on %d SAs", packets, len(sent))
	Expect(got).To(HaveLen(len(sent)))
	GinkgoWriter.Printf("%d packets on %d SAs that were replaced, none lost\n", packets, len(sent))
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
