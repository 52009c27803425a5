package links

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"pqlab/lab"
	"pqlab/links/wifi"
	"pqlab/suites/testlab"
	"pqlab/topology"
	"pqlab/traffic"
)

// air is what a Wi-Fi link with airtime does whose station is changed while packets are on it.
func air(s shaper) {
	It("moves a Wi-Fi station while its packets pass: out of range nothing arrives, and back again everything", func(ctx SpecContext) {
		const n = 200
		p, f := s.cell(ctx, "jetson-ac-2x2-80", 100)
		f.send(ctx, n, time.Millisecond)
		p.settle(ctx, f)
		p.set("", "distance=10km")
		f.send(ctx, n, time.Millisecond)
		p.settle(ctx, f)
		p.set("", "distance=3m")
		f.send(ctx, n, time.Millisecond)
		lost := f.fates(ctx).Lost()
		part := func(from, to int) (missing int) {
			for _, l := range lost[from:to] {
				if l {
					missing++
				}
			}
			return missing
		}
		Expect(part(0, n)).To(BeNumerically("<=", others), "lost at first")
		Expect(part(n, 2*n)).To(BeNumerically(">=", n-others), "lost out of range")
		Expect(part(2*n, 3*n)).To(BeZero(), "lost back again")
	}, NodeTimeout(timeout))
	It("sends with the MCS that a Wi-Fi station gets while its packets pass", func(ctx SpecContext) {
		const slowest = 7222 * topology.Kbit // MCS 0 in 20 MHz
		trials(8, func(uint64) (wrong string) {
			p, f := s.cell(ctx, "iot-n-1x1-20", large)
			var ends []int
			var starts []time.Time
			for _, mcs := range []string{"0", "auto"} {
				p.set("", "mcs="+mcs)
				starts = append(starts, time.Now())
				f.offer(ctx, 2*slowest, time.Second)
				p.settle(ctx, f)
				ends = append(ends, *f.sent)
			}
			var arrived [2]int
			var took [2]time.Duration
			for _, a := range f.fates(ctx).Arrived {
				part := 0
				if a.Number >= ends[0] {
					part = 1
				}
				arrived[part]++
				took[part] = max(took[part], a.At.Sub(starts[part]))
			}
			seen := func(part int) float64 { return float64(arrived[part]) * frame * 8 / took[part].Seconds() }
			Expect(arrived[0]).To(BeNumerically(">", 100))
			Expect(seen(0)).To(BeNumerically("<", float64(slowest)), "bit/s at MCS 0")
			if seen(1) < 1.2*float64(slowest) {
				wrong = fmt.Sprintf("%.0f bit/s with rate control", seen(1))
			}
			return wrong
		})
	}, NodeTimeout(timeout))
}

// cell is a client that sends to a host behind its access point, by a Wi-Fi link with airtime.
func (s shaper) cell(ctx context.Context, profile string, size int) (pair, flow) {
	GinkgoHelper()
	t, err := topology.New("links").Client("a").AP("ap").Host("b").
		WiFi("a", "ap", topology.Name(linkName), topology.Station{Profile: profile, Distance: 3}).
		Ethernet("ap", "b", topology.Name("behind")).Topology()
	Expect(err).NotTo(HaveOccurred())
	plan, err := t.Plan()
	Expect(err).NotTo(HaveOccurred())
	s.need(plan.Links)
	p := pair{s.Up(ctx, t, func(o *lab.Options) { o.Shaper = s.name })}
	far, _ := testlab.Ends(p.Lab, "behind", "b")
	prober, err := traffic.NewProber(p.Node("a").Namespace().Do, p.Node("b").Namespace().Do, netip.AddrPortFrom(p.address(far), 0), size)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(prober.Close)
	return p, flow{prober, p.Link(linkName), 0, new(int)}
}

// others is how many packets the client may send by itself: to find its neighbours.
const others = 10

// settle waits until all that was sent has arrived or was given up, or all but as many as the others are.
func (p pair) settle(ctx context.Context, f flow) {
	GinkgoHelper()
	Eventually(ctx, func() bool {
		up := p.station().Up
		return up.Packets >= uint64(*f.sent) && up.Queued == 0
	}).WithPolling(10*time.Millisecond).Should(BeTrue(), "all that was sent is done with")
}

// station is that of the pair's link, as its cell sees it.
func (p pair) station() wifi.StationState {
	GinkgoHelper()
	cell, number, ok := p.Link(linkName).Cell()
	Expect(ok).To(BeTrue())
	return cell.Stations[number]
}
