package links

import (
	"context"
	"fmt"
	"slices"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"pqlab/topology"
	"pqlab/traffic"
)

// many packets make shares exact, and pace keeps them from filling queues where a process stands still for some time.
const (
	many = 20000
	pace = 50 * time.Microsecond
)

// loss is what does not come.
func loss(s shaper) {
	for _, shape := range []topology.Shape{
		{Loss: 0.01},
		{Loss: 0.1, LossCorrelation: 0.5},
		{GilbertElliott: topology.GilbertElliott{P: 0.01, R: 0.25}},
	} {
		It(fmt.Sprintf("loses as many as asked, in bursts as asked: %v", shape), func(ctx SpecContext) {
			trials(3, func(seed uint64) string {
				got := s.pair(ctx, shape, seed).from("a", 100).send(ctx, many, pace).fates(ctx)
				late, repeated := got.Overtaken()
				Expect([]int{late, repeated}).To(Equal([]int{0, 0}), "overtaken, repeated")
				// Each of these is a number of independent draws: whether a burst begins, and whether it ends.
				lost, bursts, chain := got.Missing(), got.Bursts(), shape.Chain()
				switch {
				case !traffic.Likely(bursts, many-lost, chain.P, miss):
					return fmt.Sprintf("after %d that came %d bursts begin", many-lost, bursts)
				case !traffic.Likely(bursts, lost, chain.R, miss):
					return fmt.Sprintf("after %d that were lost %d bursts end", lost, bursts)
				case shape.LossCorrelation == 0 && shape.Loss > 0 && !traffic.Likely(lost, many, shape.Loss, miss):
					return fmt.Sprintf("%d of %d are lost", lost, many)
				}
				return ""
			})
		}, NodeTimeout(timeout))
	}
	It("loses in the good state too, and not all in the bad one", func(ctx SpecContext) {
		s.share(ctx, topology.Shape{GilbertElliott: topology.GilbertElliott{P: 0.5, R: 0.5, Bad: 0.3, Good: 0.1}}, 0.2, 0.2, traffic.Fates.Missing)
	}, NodeTimeout(timeout))
	It("loses the same packets for the same seed, and others for another and in the other direction", func(ctx SpecContext) {
		lost := func(node string, seed uint64) []bool {
			s.needShape(topology.Shape{Loss: 0.1})
			// Nothing is drawn for what the nodes send until they are silent.
			p := s.pair(ctx, topology.Shape{}, seed)
			p.set("", "loss=10%")
			if !p.Link(linkName).State().Seeded {
				Skip(s.name + " takes no seed here (netem does from Linux 6.6 on)")
			}
			return p.from(node, 100).send(ctx, 3000, pace).fates(ctx).Lost()
		}
		first := lost("a", seed)
		Expect(slices.Contains(first, true)).To(BeTrue(), "none is lost")
		Expect(lost("a", seed)).To(Equal(first), "the same seed again")
		Expect(lost("a", seed+1)).NotTo(Equal(first), "another seed")
		Expect(lost("b", seed)).NotTo(Equal(first), "the other direction")
	}, NodeTimeout(timeout))
	It("draws for each frame of what was sent as one large segment", func(ctx SpecContext) {
		trials(3, func(seed uint64) string {
			const size, each, sends = 500, 40, 100
			f := s.pair(ctx, topology.Shape{Loss: 0.3}, seed).from("a", size)
			raw, err := f.Socket().SyscallConn()
			Expect(err).NotTo(HaveOccurred())
			Expect(raw.Control(func(fd uintptr) {
				defer GinkgoRecover()
				Expect(unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, size)).To(Succeed())
			})).To(Succeed())
			tick := time.NewTicker(2 * each * pace)
			defer tick.Stop()
			for range sends {
				Expect(f.SendTogether(each)).To(Succeed())
				*f.sent += each
				f.keepUp(ctx)
				<-tick.C
			}
			got := f.fates(ctx)
			lost := got.Lost()
			for i := 0; i < len(lost); i += each {
				Expect(lost[i:i+each]).To(ContainElements(true, false), "one fate of all frames")
			}
			if !traffic.Likely(got.Missing(), sends*each, 0.3, miss) {
				return fmt.Sprintf("%d of %d are lost", got.Missing(), sends*each)
			}
			return ""
		})
	}, NodeTimeout(timeout))
}

// copies are what comes otherwise than once, whole and in order.
func copies(s shaper) {
	It("sends as many twice as asked", func(ctx SpecContext) {
		s.share(ctx, topology.Shape{Duplication: 0.02}, 0.02, 0.02, func(got traffic.Fates) int {
			late, repeated := got.Overtaken()
			Expect([]int{got.Missing(), late}).To(Equal([]int{0, 0}), "missing, overtaken")
			return repeated
		})
	}, NodeTimeout(timeout))
	It("turns over a bit in as many as asked, which the receiver throws away", func(ctx SpecContext) {
		// Of a frame of 142 bytes those of the source's hardware address may change unseen, and a bit of the other's.
		const p = 0.05
		s.share(ctx, topology.Shape{Corruption: p}, p*(1-7.0/142), p, func(got traffic.Fates) int {
			late, repeated := got.Overtaken()
			Expect([]int{late, repeated}).To(Equal([]int{0, 0}), "overtaken, repeated")
			return got.Missing()
		})
	}, NodeTimeout(timeout))
	It("lets as many overtake as asked", func(ctx SpecContext) {
		const n, d, p = 10000, 300 * time.Millisecond, 0.1
		trials(8, func(seed uint64) string {
			got := s.pair(ctx, topology.Shape{Delay: d, Reordering: p}, seed).from("a", 100).send(ctx, n, 2*pace).fates(ctx)
			late, repeated := got.Overtaken()
			Expect([]int{got.Missing(), repeated}).To(Equal([]int{0, 0}), "missing, repeated")
			early := 0 // that skip the delay
			for _, a := range got.Arrived {
				if a.Delay < d/2 {
					early++
				}
			}
			if !traffic.Likely(early, n, p, miss) || late < n/2 {
				return fmt.Sprintf("%d of %d came early, %d were overtaken", early, n, late)
			}
			return ""
		})
	}, NodeTimeout(timeout))
}

// share checks that a share of the packets, from least to most, are those that count counts.
func (s shaper) share(ctx context.Context, shape topology.Shape, least, most float64, count func(traffic.Fates) int) {
	GinkgoHelper()
	trials(3, func(seed uint64) string {
		got := count(s.pair(ctx, shape, seed).from("a", 100).send(ctx, many, pace).fates(ctx))
		mean := float64(got) / many
		if (mean < least && !traffic.Likely(got, many, least, miss)) || (mean > most && !traffic.Likely(got, many, most, miss)) {
			return fmt.Sprintf("%v: %d of %d", shape, got, many)
		}
		return ""
	})
}
