package links

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"pqlab/internal/vm/guest"
	"pqlab/links/wire"
	"pqlab/topology"
	"pqlab/traffic"
)

const (
	// A link counts frames: the IP packet and 14 bytes.
	headers = 14 + 20 + 8
	large   = 1400 // bytes of payload
	frame   = large + headers
	window  = 50 // frames, of which the rate is looked at
)

// rate is how much passes.
func rate(s shaper) {
	for _, r := range []topology.Rate{5 * topology.Mbit, 20 * topology.Mbit} {
		It(fmt.Sprintf("passes %v in each direction by itself, and no more", r), func(ctx SpecContext) {
			trials(12, func(seed uint64) string {
				p := s.pair(ctx, topology.Shape{Rate: r}, seed)
				there, back := p.from("a", large), p.from("b", large)
				var both sync.WaitGroup
				both.Go(func() {
					defer GinkgoRecover()
					back.offer(ctx, 3*r, 1500*time.Millisecond)
				})
				there.offer(ctx, 3*r, 1500*time.Millisecond)
				both.Wait()
				return there.held(there.fates(ctx), r) + back.held(back.fates(ctx), r)
			})
		}, NodeTimeout(timeout))
	}
}

// offer sends large datagrams at a rate for some time.
func (f flow) offer(ctx context.Context, r topology.Rate, d time.Duration) {
	GinkgoHelper()
	gap := time.Duration(frame * 8 / float64(r) * float64(time.Second))
	f.send(ctx, int(d/gap), gap)
}

// near is how far the middle one of all windows may be off the rate. A busy machine takes from some windows, and lets others
// catch up; an emulated one has little to spare for any, nor has one of which the wire says how late it was run.
func (f flow) near(r topology.Rate) float64 {
	if guest.Emulated() {
		return 0.1
	}
	return min(0.025, 0.01+f.late().P99.Seconds()*float64(r)/(window*frame*8))
}

// late is how late a wire says that packets left it.
func (f flow) late() (l wire.Lateness) {
	if f.link.Driven() {
		l = f.link.State().Wire[f.side].Lateness
	}
	return l
}

// above says whether more came than may: most times the rate. Of what came at once after the wire had stood still, which
// it tells, the first came late.
func (f flow) above(arrived []traffic.Arrival, r topology.Rate, most float64) (wrong string) {
	GinkgoHelper()
	took := arrived[len(arrived)-1].At.Sub(arrived[0].At)
	if seen := bits(arrived) / (took + f.late().Max).Seconds(); seen > most*float64(r) {
		Fail(fmt.Sprintf("%.0f bit/s pass at a rate of %v", seen, r))
	}
	if seen := total(arrived); seen > most*float64(r) {
		wrong = fmt.Sprintf("%.0f bit/s pass at a rate of %v, where the wire was up to %v late; ", seen, r, f.late().Max)
	}
	return wrong
}

// held checks what came of more than the rate. Never may more than that pass, and one bucket or two frames. That it all
// passes is seen in single windows: in the middle one.
func (f flow) held(got traffic.Fates, r topology.Rate) (wrong string) {
	GinkgoHelper()
	late, repeated := got.Overtaken()
	Expect([]int{late, repeated}).To(Equal([]int{0, 0}), "overtaken, repeated")
	wrong = f.above(got.Arrived, r, 1.01+room(r)/bits(got.Arrived))
	seen := windows(got.Arrived)
	if usual := seen[len(seen)/2] / float64(r); math.Abs(usual-1) > f.near(r) {
		wrong += fmt.Sprintf("in the middle one of the windows %.4f of %v pass; ", usual, r)
	}
	if got.Missing() == 0 {
		wrong += fmt.Sprintf("all passes at a rate of %v; ", r)
	}
	return wrong
}

// room is what passes at once when a link was idle, in bits: what the rate brings in 4 ms, but so many bytes at least.
func room(r topology.Rate) float64 { return max(float64(r)*0.004, 8*4000) + 2*8*frame }

func bits(arrived []traffic.Arrival) float64 { return float64(len(arrived)-1) * frame * 8 }

// total is the rate at which frames came after the first of them.
func total(arrived []traffic.Arrival) float64 {
	return bits(arrived) / arrived[len(arrived)-1].At.Sub(arrived[0].At).Seconds()
}

// windows are the rates of runs of arrivals, ascending. The best has what a bucket had saved.
func windows(arrived []traffic.Arrival) (seen []float64) {
	GinkgoHelper()
	for w := range slices.Chunk(arrived, window) {
		if len(w) == window {
			seen = append(seen, total(w))
		}
	}
	Expect(len(seen)).To(BeNumerically(">", 1), "windows in %d arrivals", len(arrived))
	slices.Sort(seen)
	return seen
}

// queue is what a link holds.
func queue(s shaper) {
	It("loses none of many small packets to a long delay", func(ctx SpecContext) {
		const r = 5 * topology.Mbit
		const size = 100
		trials(5, func(seed uint64) string {
			// Some 2000 are on their way at once.
			f := s.pair(ctx, topology.Shape{Rate: r, Delay: 600 * time.Millisecond}, seed).from("a", size)
			gap := time.Duration((size + headers) * 8 / (0.8 * float64(r)) * float64(time.Second))
			got := f.send(ctx, 5000, gap).fates(ctx)
			if lost := got.Missing(); lost > 0 {
				return fmt.Sprintf("%d of %d are lost", lost, len(got.Sent))
			}
			return ""
		})
	}, NodeTimeout(timeout))
	It("lets TCP have the rate over a long delay", func(ctx SpecContext) {
		const r = 20 * topology.Mbit
		trials(8, func(seed uint64) string {
			p := s.pair(ctx, topology.Shape{Rate: r, Delay: 60 * time.Millisecond}, seed, func(b *topology.Builder) { b.TCP("a", "b") })
			result, err := p.Send(ctx, p.Plan.Traffic[0], 6*time.Second)
			Expect(err).NotTo(HaveOccurred())
			const payload = r * 1448 / 1514
			// After TCP's start, which takes as many round trips as this is long.
			const start = 20
			Expect(len(result.Bins)).To(BeNumerically(">", 2*start))
			var sum uint64
			for _, b := range result.Bins[start:] {
				sum += b.Bits
			}
			seen := float64(sum) / (float64(len(result.Bins)-start) / 10) / float64(payload)
			AddReportEntry("share of the rate", fmt.Sprintf("%.3f", seen))
			if seen < 0.75 {
				return fmt.Sprintf("TCP has %.3f of what %v leave for payload", seen, r)
			}
			return ""
		})
	}, NodeTimeout(timeout))
}
